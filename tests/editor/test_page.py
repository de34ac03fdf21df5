"""The editor's page in a browser: headless Chromium, driven by Selenium."""
import io
import shutil
import signal

import numpy as np
from PIL import Image
import pytest

from test_http_server import started                        # noqa: F401, a fixture

webdriver = pytest.importorskip('selenium.webdriver', reason='no Selenium here')
from selenium.webdriver.common.action_chains import ActionChains            # noqa: E402
from selenium.webdriver.common.actions.action_builder import ActionBuilder  # noqa: E402
from selenium.webdriver.common.by import By                                 # noqa: E402
from selenium.webdriver.common.keys import Keys                             # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait             # noqa: E402

FLAGS = ('--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run '
         '--disable-background-networking --disable-component-update --disable-sync '
         '--window-size=1280,900').split()


def chromium(profile):
    """Return a browser without a window that makes no connections by itself."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which('chromium')
    for word in (*FLAGS, f'--user-data-dir={profile}'):
        options.add_argument(word)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which('chromedriver')))


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    if not shutil.which('chromium') or not shutil.which('chromedriver'):
        pytest.skip('no chromium and chromedriver here (Debian: chromium chromium-driver)')
    driver = chromium(tmp_path_factory.mktemp('profile'))
    yield driver
    driver.quit()


class Page:
    """The page in the browser: what a person does and sees."""

    def __init__(self, browser, address):
        self.browser = browser
        browser.get(address)
        self.wait('return labels !== null && shownVersion === state.version')

    def js(self, script, *words):
        return self.browser.execute_script(script, *words)

    def wait(self, script):
        WebDriverWait(self.browser, 300).until(lambda _: self.js(script))

    def settled(self):
        """Wait for the last edit and its picture."""
        self.browser.execute_async_script('queue.then(arguments[0])')
        self.wait('return shownVersion === state.version && $("doing").textContent === ""')
        return self.picture()

    def picture(self):
        h, w = self.js('return [picture.height, picture.width]')
        return np.array(self.js('return [...picture.getContext("2d").getImageData(0, 0, '
                                'picture.width, picture.height).data]')).reshape(h, w, 4)[..., :3]

    def maps(self):
        h, w = self.js('return [state.size[1], state.size[0]]')
        return (np.array(self.js(f'return [...{name}]')).reshape(h, w)
                for name in ('labels', 'insts'))

    def at(self, x, y):
        return self.js('const box = $("view").getBoundingClientRect(); return [box.left + left + '
                       'zoom * (arguments[0] + .5), box.top + top_ + zoom * (arguments[1] + .5)]',
                       int(x), int(y))

    def drag(self, *points):
        """Press the button at the first point of the picture, move to the others, release it."""
        action = ActionBuilder(self.browser)
        for i, point in enumerate(points):
            action.pointer_action.move_to_location(*map(round, self.at(*point)))
            if i == 0:
                action.pointer_action.pointer_down()
        action.pointer_action.pointer_up()
        action.perform()

    def click(self, name):
        self.browser.find_element(By.ID, name).click()

    def press(self, *keys):
        """Press the last key while the others are held."""
        action = ActionChains(self.browser)
        for key in keys[:-1]:
            action.key_down(key)
        action.send_keys(keys[-1])
        for key in keys[:-1]:
            action.key_up(key)
        action.perform()


def test_a_person_edits_a_scene(browser, started, command, trained, tmp_path):  # noqa: F811
    process, address = started()
    page = Page(browser, address)
    first, (labels, insts) = page.picture(), page.maps()

    # A click selects; thumbnails appear; one of them changes the object's style.
    car = page.js('return state.objects.filter(({label}) => state.labels[label].name === "car")'
                  '.sort((a, b) => b.pixels - a.pixels)[0]')
    mask = insts == car['id']
    y, x = (int(values[len(values) // 2]) for values in mask.nonzero())
    page.drag((x, y))
    assert page.js('return selected') == car['id']
    page.wait('return document.querySelectorAll("#styles img").length'
              ' === state.labels[objects.get(selected).label].styles')
    styles = browser.find_elements(By.CSS_SELECTOR, '#styles button')
    next(button for button in styles if button.get_attribute('aria-pressed') == 'false').click()
    styled = page.settled()
    changed = (styled != first).any(2)
    assert changed[mask].mean() > 0.9
    assert (page.js('return [...labels]') == labels.ravel()).all()

    # Change the label; undo and redo with keys.
    Select(browser.find_element(By.ID, 'relabel')).select_by_visible_text('truck')
    page.settled()
    assert (next(page.maps())[mask] == 27).all()
    page.press(Keys.CONTROL, 'z')
    assert (page.settled() == styled).all() and (next(page.maps()) == labels).all()
    page.press(Keys.CONTROL, Keys.SHIFT, 'z')
    page.settled()

    # Paint a bus in the sky, move it, and remove the truck.
    browser.find_element(By.ID, 'search').send_keys('bus')
    browser.find_element(By.CSS_SELECTOR, '#legend button').click()
    browser.find_element(By.ID, 'view').click()
    page.press('r')
    page.drag((4, 2), (20, 4), (28, 8))
    page.settled()
    label, inst = page.maps()
    assert (label[2:9, 4:29] == 28).all() and len(np.unique(inst[2:9, 4:29])) == 1
    bus = int(inst[5, 10])
    assert bus not in insts and page.js('return selected') == bus
    page.press('v')
    page.drag((10, 5), (15, 6), (22, 7))
    page.settled()
    label, inst = page.maps()
    assert (inst[4:11, 16:41] == bus).all() and (inst[2:4, 4:16] != bus).all()
    page.drag((x, y))
    page.press(Keys.DELETE)
    last = page.settled()
    label, inst = page.maps()
    assert car['id'] not in inst and (last != first).any()

    # Holding a key shows the opened scene, also after the page is reloaded.
    before = np.array(page.js('return [...original.getContext("2d").getImageData(0, 0, '
                              'picture.width, picture.height).data]')).reshape(*last.shape[:2], 4)
    assert (before[..., :3] == first).all()
    page = Page(browser, address)
    page.wait('return originalOf === state.opened')
    assert (np.array(page.js('return [...original.getContext("2d").getImageData(0, 0, picture.width'
                             ', picture.height).data]')) == before.ravel()).all()
    browser.find_element(By.ID, 'view').click()
    ActionChains(browser).key_down('c').perform()
    assert page.js('return before')
    ActionChains(browser).key_up('c').perform()
    assert not page.js('return before')

    # Save: the files are the maps and the picture on the page, and `generate` agrees.
    page.click('save')
    page.wait('return !state.unsaved')
    folder = tmp_path / 'out'
    name = next(folder.glob('*-001.png')).name.removesuffix('.png')
    saved = {what: folder / f'{name}_{what}' for what in (
        'labelIds.png', 'instanceIds.png', 'styles.json')}
    assert (np.asarray(Image.open(saved['labelIds.png'])) == label).all()
    assert (np.asarray(Image.open(saved['instanceIds.png'])) == inst).all()
    assert (np.asarray(Image.open(folder / f'{name}.png')) == last).all()
    code, _, err = command('generate', '--run', trained, '--label', saved['labelIds.png'], '--inst',
                           saved['instanceIds.png'], '--styles', saved['styles.json'],
                           '--out', 'again')
    assert code == 0, err
    again, = (tmp_path / 'again').iterdir()
    assert again.read_bytes() == (folder / f'{name}.png').read_bytes()

    # The other tools, the views and the list of keys work without an error.
    for key in ('b', 'e'):
        page.press(key)
        page.drag((30, 20), (34, 24))
        page.settled()
    page.press('g')
    page.drag((2, 30))
    page.settled()
    for key in '2341':
        page.press(key)
    page.press('?')
    assert page.js('return $("sheet").open')
    page.press(Keys.ESCAPE)
    assert not page.js('return $("sheet").open')
    picture = Image.open(io.BytesIO(browser.get_screenshot_as_png()))
    assert picture.width >= 1280 and len(picture.convert('RGB').getcolors(1 << 24)) > 100
    assert not browser.get_log('browser')                   # no error, nothing blocked
    process.send_signal(signal.SIGINT)


def test_the_page_shows_errors(browser, started):     # noqa: F811
    process, address = started()
    page = Page(browser, address)
    page.js('edit({do: "remove", object: 987654})')
    page.wait('return document.querySelector(".note.bad") !== null')
    assert 'remove: 987654: expected the number of an object' in page.js(
        'return document.querySelector(".note.bad").textContent')
    process.kill()
    process.wait()
    page.js('edit({do: "undo"})')
    page.wait('return document.querySelectorAll(".note.bad").length >= 2')
    assert 'does not answer' in page.js(
        'return [...document.querySelectorAll(".note.bad")].at(-1).textContent')
    browser.get_log('browser')
