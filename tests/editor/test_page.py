"""The editor's page in a browser: headless Chromium, driven by Selenium."""
import base64
import contextlib
import io
import json
import shutil
import signal
import threading

import numpy as np
from PIL import Image
import pytest

from app.editor import http_server, operations, scene_files
from test_http_server import encoded_map, kept, post, served, started       # noqa: F401
from test_operations import INST, LABEL, NAMES, TRUCK, make_clusters, run   # noqa: F401

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
        browser.get(address)                                # also if the page before would ask
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

    def colour(self, x, y):
        """Return what the canvas shows at a point of the picture."""
        self.js('paintStage()')
        return self.js('const box = $("view").getBoundingClientRect(); return [...$("view")'
                       '.getContext("2d").getImageData(arguments[0] - box.left, arguments[1] - '
                       'box.top, 1, 1).data].slice(0, 3)', *self.at(x, y))

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
    assert 'remove: "object": 987654: expected the number of an object' in page.js(
        'return document.querySelector(".note.bad").textContent')
    process.kill()
    process.wait()
    page.js('edit({do: "undo"})')
    page.wait('return !$("lost").hidden')
    assert page.js('return $("lost").textContent').startswith('The editor does not answer.')
    browser.get_log('browser')


# ------------------------------------------------------------------- a scene in this process

@pytest.fixture
def opened(browser, run, tmp_path):                         # noqa: F811
    """Return a function that serves the scene of test_operations at 64x48, and opens its page:
    server, Page. What it warns of must not be an error in the browser."""
    with contextlib.ExitStack() as stack:
        def start(**more):
            label, inst = (np.kron(x, np.ones((8, 8), x.dtype)) for x in (LABEL, INST))
            clusters = make_clusters()
            styles = {i: operations.main_styles(clusters, [int(label[inst == i][0])])[0]
                      for i in np.unique(inst).tolist()}
            editor = operations.Editor(run, clusters, operations.State(label, inst, styles))
            server = stack.enter_context(served(editor, tmp_path, **more))
            return server, Page(browser, server.address)
        yield start
        browser.get('about:blank')
    browser.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
    browser.get_log('browser')


CAR = (12, 28)                                              # on the car 26000, as all of [8, 24[
BUS = '{do: "paint", label: "bus", rectangle: [2, 2, 9, 9]}'


def notes(page):
    return page.js('return [...$("notes").children].map(box => box.textContent)')


def test_unsaved_work_is_marked_and_closing_asks(opened):
    _, page = opened()

    def asks():
        return page.js('const event = new Event("beforeunload", {cancelable: true}); '
                       'dispatchEvent(event); return event.defaultPrevented')

    assert page.js('return $("unsaved").hidden') and not asks()
    page.js(f'edit({BUS})')
    assert asks()                                           # while it is on its way, too
    page.settled()
    assert not page.js('return $("unsaved").hidden') and asks()
    page.js('actions.undo()')
    page.settled()
    assert page.js('return $("unsaved").hidden') and not asks()


def test_a_warning_stands_while_edits_are_not_kept(opened, monkeypatch):
    server, page = opened()

    def full(*_, **__):
        raise OSError('No space left on device')
    with monkeypatch.context() as patch:
        patch.setattr('app.editor.scene_files.np.savez_compressed', full)
        page.js(f'edit({BUS})')
        page.wait('return !$("unkept").hidden')
        text = page.js('return $("unkept").textContent')
        assert 'No space left on device' in text and text.endswith('. Save often.')
    page.js('edit({do: "remove", object: 26000})')
    page.wait('return $("unkept").hidden')


def test_unsaved_edits_are_offered_with_time_number_and_picture(opened, browser):
    server, page = opened()
    page.js(f'edit({BUS}, {{do: "remove", object: 26001}})')
    page.settled()
    kept(server)
    edited = [x.tolist() for x in page.maps()]
    server, page = opened()
    page.wait('return document.querySelector("#notes img")?.naturalWidth === 64')
    text, = notes(page)
    year = str(np.datetime64('now'))[:4]
    assert text.startswith('2 unsaved edits of scene, ') and year in text
    page.js('[...document.querySelectorAll("#notes button")][0].click()')
    page.settled()
    assert [x.tolist() for x in page.maps()] == edited and not page.js('return $("unsaved").hidden')
    server, page = opened()
    page.wait('return document.querySelector("#notes img") !== null')
    page.js('[...document.querySelectorAll("#notes button")][1].click()')
    page.wait('return !state.unsaved_found.length')
    assert kept(server) == ['.scene-unsaved-001-001.forgotten']


def test_what_another_tab_has_changed(opened):
    """A page notices it; what it does before it notices is refused."""
    server, page = opened()
    version = page.js('return state.version')
    post(server, '/edit', {'edits': [{'do': 'remove', 'object': 26001}], 'page': 'other'})
    page.wait(f'return state.version > {version}')
    page.settled()
    assert 26001 not in list(page.maps())[1] and not notes(page)
    page.js('beating = true')                               # it does not look any more
    post(server, '/edit', {'edits': [{'do': 'remove', 'object': 26000}], 'page': 'other'})
    page.js(f'edit({BUS}); edit({BUS}); actions.undo(); save()')
    page.settled()
    assert page.js('return state.undo') == 2 and 26000 not in list(page.maps())[1]
    texts = notes(page)
    assert texts[0] == 'Not done: changed in another tab.' and len(texts) == 2
    assert 'Saved' in texts[1]                              # what the page then shows
    page.js(f'edit({BUS}); edit({BUS}); actions.undo()')    # its own are not refused
    page.settled()
    assert page.js('return state.undo') == 3


def test_moves_destroy_nothing_and_are_one_step(opened):
    _, page = opened()
    labels, insts = page.maps()
    page.drag(CAR)
    page.drag(CAR, (30, 30), (52, 20))
    page.drag((52, 20), (30, 30), CAR)
    page.settled()
    assert all((a == b).all() for a, b in zip(page.maps(), (labels, insts)))
    for _ in range(30):
        page.press(Keys.ARROW_LEFT)
    page.settled()
    assert page.js('return state.undo') == 1 and (insts != list(page.maps())[1]).any()
    page.js('actions.undo()')
    page.settled()
    assert page.js('return state.undo') == 0 and (insts == list(page.maps())[1]).all()


def focus(page):
    return page.js('return document.activeElement.id || document.activeElement.dataset.key')


def test_keys_after_a_click_on_a_tool(opened, browser):
    _, page = opened()
    for selector in ('[data-tool=rectangle]', '#before', '[data-view=blend]', '#width', '#fit'):
        browser.find_element(By.CSS_SELECTOR, selector).click()
        assert focus(page) == 'view'
        ActionChains(browser).key_down(' ').perform()
        assert page.js('return spaceHeld')
        ActionChains(browser).key_up(' ').perform()
    Select(browser.find_element(By.ID, 'to')).select_by_value('same')
    assert focus(page) == 'view'
    page.press('v')
    assert page.js('return tool') == 'select'
    page.js(f'edit({BUS}, {BUS})')
    page.settled()
    page.js('$("undo").focus()')
    page.press(Keys.ENTER)                                  # a key leaves the focus
    page.settled()
    assert focus(page) == 'undo' and page.js('return state.undo') == 1
    page.js('document.querySelectorAll("#legend button")[2].focus()')
    key = focus(page)
    page.press(Keys.ENTER)
    assert focus(page) == key and page.js('return paintLabel') == int(key)


def test_change_to_by_keys(opened):
    _, page = opened()
    page.drag(CAR)
    page.js('$("relabel").focus()')
    for key in (Keys.ARROW_DOWN, Keys.ARROW_DOWN, 'w'):
        page.press(key)
    page.settled()
    assert page.js('return [state.undo, state.labels[$("relabel").value].name]') == [0, 'wall']
    page.press(Keys.ENTER)
    page.settled()
    assert page.js('return state.labels[objects.get(selected).label].name') == 'wall'
    assert focus(page) == 'relabel' and page.js('return state.undo') == 1
    page.press(Keys.ARROW_DOWN)                             # given when the list is left
    page.js('$("view").focus()')
    page.settled()
    assert page.js('return state.undo') == 2
    page.js('$("relabel").focus()')
    page.press('w')
    page.press(Keys.ESCAPE)
    page.js('$("view").focus()')
    page.settled()
    assert page.js('return state.undo') == 2


@pytest.mark.parametrize('tool', ['brush', 'fill', 'select'])
def test_two_fingers_zoom_and_move_the_view(opened, browser, tool):
    _, page = opened()
    page.drag(CAR)
    page.js('setTool(arguments[0])', tool)
    zoom, first = page.js('return zoom'), page.at(*CAR)

    def touch(kind, *points):
        browser.execute_cdp_cmd('Input.dispatchTouchEvent', {'type': kind, 'touchPoints': [
            {'x': x, 'y': y, 'id': i} for i, (x, y) in enumerate(points)]})

    (x, y) = first
    touch('touchStart', (x, y))
    touch('touchMove', (x + 20, y))
    touch('touchStart', (x + 20, y), (x + 120, y))
    for step in range(1, 11):
        touch('touchMove', (x + 20 - 5 * step, y + 3 * step), (x + 120 + 5 * step, y + 3 * step))
    touch('touchEnd')
    assert page.js('return drag') is None
    page.settled()
    assert page.js('return [state.undo, zoom]') == [0, pytest.approx(2 * zoom, rel=0.02)]
    (u, v) = page.at(*CAR)                  # which was 70 pixels left of the middle of the fingers
    assert (u, v) == (pytest.approx(x + 70 - 140, abs=8), pytest.approx(y + 30, abs=8))
    page.js('setTool("brush")')
    touch('touchStart', (u, v))             # one finger paints
    touch('touchEnd')
    page.settled()
    assert page.js('return state.undo') == 1


def drop(page, **files):
    """Drop files {name: base64} onto the page."""
    page.js('const all = new DataTransfer(); for (const [name, text] of Object.entries(arguments[0]'
            ')) all.items.add(new File([Uint8Array.from(atob(text), c => c.charCodeAt(0))], name));'
            'document.dispatchEvent(new DragEvent("drop", {dataTransfer: all, cancelable: true}))',
            files)


def answer(page, text):
    page.wait('return document.querySelector("#notes button") !== null')
    page.js('[...document.querySelectorAll("#notes button")].find(button => button.textContent'
            ' === arguments[0]).click()', text)
    page.settled()


def test_dropped_files(opened):
    """Label maps are told from photographs; a scene brings its own name."""
    server, page = opened()
    page.js(f'edit({BUS}); save()')
    page.settled()
    page.wait('return !state.unsaved')
    folder = server.session.folder
    files = {path.name: base64.b64encode(path.read_bytes()).decode()
             for path in sorted(folder.glob('scene-001*'))}
    assert len(files) == 4
    maps = [x.tolist() for x in page.maps()]
    page.js('edit({do: "reset"})')
    drop(page, **files)
    answer(page, 'Open')
    assert [x.tolist() for x in page.maps()] == maps and not page.js('return state.photo')
    assert page.js('return $("title").textContent') == 'scene-001, a run'

    drop(page, **{'my map.png': encoded_map(LABEL)})
    answer(page, 'Open')
    assert page.js('return state.size') == [8, 6] and 'my map, ' in page.js('return document.title')
    page.js(f'edit({{do: "remove", object: 0}}, {BUS.replace("9, 9", "3, 3")}); save()')
    page.settled()
    page.wait('return !state.unsaved')
    assert (folder / 'my map-001.png').exists()
    page.js('$("notes").replaceChildren()')

    drop(page, **{'other_instanceIds.png': encoded_map(INST)})
    page.wait('return $("notes").textContent.includes("map of other_instanceIds.png is missing")')
    for name, content in (('holiday.jpg', b'no picture'), ('a b.png', b'GIF89a')):
        drop(page, **{name: base64.b64encode(content).decode()})
        page.wait(f'return $("notes").textContent.includes("{name}: ")')
    page.js('actions.undo(); actions.undo(); actions.undo(); actions.undo()')
    page.settled()                          # a size that is undone fits
    zoom = page.js('return zoom')
    page.js('fit()')
    assert page.js('return [zoom, state.size]') == [zoom, [64, 48]]


def test_names_downloads_and_blank_scenes(opened, browser, tmp_path):
    """The window for a name says what is wrong; files are downloaded; a blank scene is opened."""
    server, page = opened()
    downloads = tmp_path / 'downloads'
    browser.execute_cdp_cmd('Browser.setDownloadBehavior', {
        'behavior': 'allow', 'downloadPath': str(downloads)})
    page.js(f'edit({BUS}); $("view").focus()')
    page.settled()
    page.press(Keys.CONTROL, Keys.SHIFT, 's')
    assert page.js('return [$("saving").open, $("filename").value]') == [True, 'scene']
    for name, message in (('a/b', 'expected a name'), ('dawn', '')):
        browser.find_element(By.ID, 'filename').clear()
        browser.find_element(By.ID, 'filename').send_keys(name)
        page.press(Keys.ENTER)
        page.browser.execute_async_script('queue.then(arguments[0])')
        assert message in page.js('return $("saveerror").textContent')
    assert page.js('return [$("saving").open, $("title").textContent]') == [False, 'dawn, a run']
    page.click('saveas')
    page.press(Keys.ENTER)
    page.wait('return $("saveerror").textContent.endsWith("choose another, for example dawn-001")')
    for role in ('picture', 'edits', 'all'):
        browser.find_element(By.CSS_SELECTOR, f'[data-file={role}]').click()
        page.browser.execute_async_script('queue.then(arguments[0])')
    names = ['dawn.png', 'dawn.zip', 'dawn_edits.json']
    WebDriverWait(browser, 300).until(
        lambda _: downloads.exists() and sorted(path.name for path in downloads.iterdir()) == names)
    assert (downloads / 'dawn.png').read_bytes() == (tmp_path / 'dawn.png').read_bytes()
    edits, = json.loads((downloads / 'dawn_edits.json').read_text())
    assert edits['do'] == 'paint'
    browser.find_element(By.CSS_SELECTOR, '#saving [data-shut]').click()

    page.click('new')
    assert page.js('return [$("blankwidth").value, $("blankheight").value]') == ['64', '48']
    page.js('$("blankheight").value = 32')
    Select(browser.find_element(By.ID, 'blanklabel')).select_by_visible_text('sky')
    browser.find_element(By.CSS_SELECTOR, '#blankform button').click()
    page.wait('return !$("blank").open')
    page.settled()
    assert page.js('return [state.name, state.size, document.activeElement.id]') == [
        'blank', [64, 32], 'view']
    labels, _ = page.maps()
    assert (labels == 23).all()
    drop(page, **{'x_edits.json': base64.b64encode(json.dumps([edits]).encode()).decode()})
    page.wait('return state.edits === 1')
    page.settled()
    page.js('actions.undo(); actions.undo()')
    page.settled()
    assert page.js('return state.name') == 'dawn'


def test_scenes_and_their_styles(opened, browser, tmp_path):
    """A click on a thumbnail opens a scene; the styles of another one are offered; a slider goes
    from one style to another, shows a preview, and makes one edit."""
    folder = tmp_path / 'maps'
    folder.mkdir()
    for name, ids in (('a_labelIds', LABEL), ('a_instanceIds', INST), ('b_labelIds', LABEL[:4])):
        Image.fromarray(ids.astype(np.uint16)).save(folder / f'{name}.png')
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8))
    photo.save(folder / 'photo.png')
    files = scene_files.find_scenes(folder / 'a_labelIds.png', None, None, folder / 'photo.png')
    files |= scene_files.find_scenes(folder / 'b_labelIds.png')
    server, page = opened(listed=scene_files.SceneList(files, None, 0))
    page.click('scenes')
    page.wait('return document.querySelectorAll("#tiles img[src]").length === 2')
    browser.find_elements(By.CSS_SELECTOR, '#tiles .tile button:first-child')[1].click()
    page.wait('return state.name === "b"')
    page.settled()
    assert page.js('return [$("browser").open, state.size]') == [False, [8, 4]]
    page.js('edit({do: "undo"})')
    page.settled()

    page.drag(CAR)
    page.click('scenes')
    assert page.js('return document.querySelectorAll(".tile.on").length') == 0
    browser.find_elements(By.CSS_SELECTOR, '#tiles .tile button:nth-child(2)')[0].click()
    page.wait('return document.querySelectorAll("#styles button img").length === 4 + 1')
    page.browser.execute_async_script('queue.then(arguments[0])')
    assert page.js('return $("styles").querySelector("h3").textContent') == 'car of a'
    content = [base64.b64encode(path.read_bytes()).decode() for path in sorted(folder.iterdir())]
    drop(page, **{'x_instanceIds.png': content[0], 'x_labelIds.png': content[1],
                  'p.jpg': content[3]})
    answer(page, 'Take its styles')
    page.wait('return state.borrowed === 2 && document.querySelectorAll("#styles h3").length === 2')
    assert page.js('return state.undo') == 0

    other, = page.js('return borrowed[0].styles.filter(({label}) => label === 26).slice(0, 1)')
    page.js('$("mix").scrollIntoView()')
    page.click('mix')
    assert not page.js('return $("mixhint").hidden')
    browser.find_elements(By.CSS_SELECTOR, '#styles button')[3].click()
    page.wait('return !$("mixing").hidden')
    now = page.js('return mixing.from.features')
    first = page.settled()
    page.js('$("share").value = 0.25; $("share").dispatchEvent(new Event("input"))')
    page.wait('return !!mixed && !previewing')
    assert page.js('return state.undo') == 0 and page.js('return mixed.image.width') == 16
    page.js('$("share").dispatchEvent(new Event("change"))')
    assert (page.settled() != first).any()
    assert page.js('return state.undo') == 1
    features = server.session.editor.state.styles[26000].features
    assert features == pytest.approx([a + (b - a) / 4 for a, b in zip(now, other['features'])])
    page.press(Keys.ESCAPE)
    assert page.js('return [mixing, selected]') == [None, 26000]
    browser.find_elements(By.CSS_SELECTOR, '#styles button')[3].click()
    page.settled()
    assert server.session.editor.state.styles[26000].features == tuple(
        np.float32(other['features']).tolist())


def test_commands_are_decided_in_the_order_of_the_server(opened):
    _, page = opened()
    assert page.js(f'edit({BUS}); $("undo").click(); return $("undo").disabled') is False
    page.settled()
    assert page.js('return [state.undo, state.redo]') == [0, 1]
    assert page.js('return $("undo").disabled')
    page.js('actions.redo(); actions.undo(); actions.redo()')
    page.settled()
    assert page.js('return [state.undo, state.redo]') == [1, 0]
    page.js('for (let i = 0; i < 80; i++) actions.undo()')
    page.settled()
    assert page.js('return [state.undo, state.redo]') == [0, 1] and not notes(page)


def test_the_scene_before_in_every_view(opened, browser):
    _, page = opened()
    page.wait('return originalOf === state.opened')
    page.js('edit({do: "relabel", object: 23, label: "bus"})')
    page.settled()
    colours = {label['name']: label['colour'] for label in page.js('return state.labels')}
    for view in ('labels', 'blend'):
        page.js('setView(arguments[0]); $("blend").value = 1', view)
        assert page.colour(40, 4) == colours['bus']
        page.js('$("view").focus()')
        ActionChains(browser).key_down('c').perform()
        assert page.colour(40, 4) == colours['sky']
        ActionChains(browser).key_up('c').perform()
        assert page.colour(40, 4) == colours['bus']


def resize(browser, page, w, h):
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', {
        'width': w, 'height': h, 'deviceScaleFactor': 1, 'mobile': False})
    page.wait(f'return innerWidth === {w} && Math.abs($("view").width - $("stage").clientWidth) < 2'
              )


@pytest.mark.parametrize('size', [(420, 900), (640, 360), (900, 700), (1400, 900)])
def test_small_windows(opened, browser, size):
    """Nothing lies outside, the picture has room, and the panel folds."""
    _, page = opened()
    page.js('save()')                                       # with the longest title and a note
    page.drag(CAR)
    resize(browser, page, *size)
    outside = page.js(
        'return [...document.querySelectorAll("#top button, #tools button, #stage, #status")]'
        '.filter(each => { const box = each.getBoundingClientRect(); return box.width && '
        '(box.left < 0 || box.right > innerWidth + .5 || box.top < 0 || box.top > innerHeight); })'
        '.map(each => each.id || each.title)')
    assert not outside and page.js('return document.documentElement.scrollWidth <= innerWidth')
    w, h = page.js('return [$("stage").clientWidth, $("stage").clientHeight]')
    assert w >= 240 and h >= 200
    page.click('fold')
    page.wait(f'return $("stage").clientWidth > {w} || $("stage").clientHeight > {h}')
    page.click('fold')
    assert page.js('return $("side").clientWidth') >= 200


def test_a_resized_window_keeps_the_zoom(opened, browser):
    _, page = opened()
    resize(browser, page, 1000, 800)
    zoom = page.js('zoomMiddle(2); return zoom')
    middle = ('return [($("stage").clientWidth / 2 - left) / zoom, '
              '($("stage").clientHeight / 2 - top_) / zoom]')
    before = page.js(middle)
    resize(browser, page, 1200, 700)
    assert page.js('return zoom') == zoom and page.js(middle) == pytest.approx(before, abs=0.5)
    page.js('fit()')
    resize(browser, page, 900, 700)
    fitted = page.js('return zoom')
    assert page.js('fit(); return zoom') == fitted


def test_labels_that_were_never_learned(opened, browser):
    _, page = opened()
    last = browser.find_elements(By.CSS_SELECTOR, '#legend button')[-1]
    assert 'truck' in last.text and 'not learned' in last.text
    page.drag(CAR)
    choices = page.js('return [...$("relabel").options].map(option => +option.value)')
    assert choices[-1] == TRUCK and len(choices) == len(NAMES) and not notes(page)
    assert page.js('return $("random").disabled || $("main").disabled') is False
    Select(browser.find_element(By.ID, 'relabel')).select_by_value(str(TRUCK))
    page.settled()
    assert page.js('return $("random").disabled && $("main").disabled')
    assert notes(page) == ['The run has learned no styles for truck. Objects of this kind get the '
                           'mean of all styles.']


def test_a_slow_server(opened):
    """The stroke stays until its picture comes."""
    server, page = opened()
    layer = next(module for module in server.session.editor.run.G.modules()
                 if not list(module.children()))
    go_on = threading.Event()
    handle = layer.register_forward_hook(lambda *_: go_on.wait(300) and None)
    try:
        page.js('setTool("brush"); $("view").focus()')
        page.drag((40, 4), (50, 4))
        assert page.js('return $("doing").textContent') in ('applying', 'computing the picture')
        page.wait('return state.undo === 1')
        assert page.js('return [strokes.length, strokes[0].points.length > 1]') == [1, True]
        assert page.js(f'edit({BUS}); return $("doing").textContent') == 'applying'
    finally:
        go_on.set()
        handle.remove()
    page.settled()
    assert page.js('return strokes.length') == 0


@pytest.mark.parametrize('saves', [False, True])
def test_edits_are_sent_again_after_a_restart(browser, started, saves):     # noqa: F811
    process, address = started()
    page = Page(browser, address)
    page.js(f'edit({BUS})')
    page.settled()
    if saves:
        page.js('save()')
        page.wait('return !state.unsaved')
    page.js('seconds = 0')
    page.wait('return fetch("/progress") && true')
    page.browser.execute_async_script('setTimeout(arguments[0], 1000)')     # until it is kept
    process.kill()
    process.wait()
    page.js('edit({do: "paint", label: "car", rectangle: [20, 2, 29, 9]})')
    page.wait('return !$("lost").hidden && $("lost").offsetHeight > 10')
    process, again = started()
    assert again == address
    page.js('$("retry").click()')                # the page may have noticed and hidden the button
    page.wait('return $("lost").hidden && !pending')
    page.settled()
    labels, _ = page.maps()
    assert (labels[2:10, 2:10] == 28).all() and (labels[2:10, 20:30] == 26).all()
    assert not [text for text in notes(page) if 'Not done' in text]
    browser.get_log('browser')
    process.send_signal(signal.SIGINT)


def test_tools_for_the_selected_object(opened, browser):
    """Same as ... for all objects of a label; Esc; more of the selected object; fill selects."""
    _, page = opened()
    page.drag(CAR)
    page.js('actions.like()')
    page.press(Keys.ESCAPE)
    assert page.js('return [pickFor, selected]') == [None, 26000]
    page.js('actions.like(); $("all").checked = true')
    page.drag((28, 28))                                     # the person
    page.settled()
    label, inst = page.maps()
    assert set(label[inst >= 26000]) == {24} and page.js('return state.undo') == 1

    page.drag(CAR)
    assert page.js('return $("split").disabled')            # it is in one piece
    page.js('paintLabel = 28')
    Select(browser.find_element(By.ID, 'to')).select_by_value('selected')
    assert page.js('return $("paintname").textContent') == 'person'
    page.press('r')
    page.drag((12, 4), (18, 10), (20, 12))
    page.settled()
    label, inst = page.maps()
    assert (inst[4:13, 12:21] == 26000).all() and (label[4:13, 12:21] == 24).all()
    page.js('select([26000])')                              # by keys, without a point
    assert not page.js('return $("split").disabled')
    page.js('actions.split()')
    page.settled()
    assert page.js('return [$("split").disabled, objects.get(selected).pixels]') == [True, 81]
    Select(browser.find_element(By.ID, 'to')).select_by_value('new')
    page.press('g')
    page.drag((40, 4))
    page.settled()
    label, inst = page.maps()
    assert label[4, 40] == 28 and page.js('return selected') == inst[4, 40]


# ---------------------------------------------------------- what painting programs have

PERSON, CAR_2 = (28, 28), (52, 28)      # [24, 32[ and [48, 56[; they and the car: [24, 40[ high


def test_behind_another_object(opened):
    """The person is still in front of the car when it is moved on; one step to undo."""
    _, page = opened()
    page.drag(CAR)
    page.press('k')
    assert page.js('return $("behind").getAttribute("aria-pressed")') == 'true'
    page.drag(PERSON)
    page.settled()
    page.js('move(16, 0)')
    page.settled()
    _, inst = page.maps()
    assert (inst[24:40, 24:32] == 24000).all() and (inst[24:40, 32:40] == 26000).all()
    assert page.js('return [state.undo, state.history[1]]') == [1, 'move car']


def boxes(page, *ids):
    return [page.js('return objects.get(arguments[0])?.box', i) for i in ids]


@contextlib.contextmanager
def held(page, *keys):
    for key in keys:
        ActionChains(page.browser).key_down(key).perform()
    yield
    for key in keys:
        ActionChains(page.browser).key_up(key).perform()


def pull(page, name, *offsets):
    """Drag a handle of the selected objects by offsets in pixels of the picture, and release."""
    x, y = page.js('const box = $("view").getBoundingClientRect(), at = handles(panes()[0])'
                   '.find(({name}) => name === arguments[0]); return [box.left + at.x, box.top + '
                   'at.y]', name)
    zoom, action = page.js('return zoom'), ActionBuilder(page.browser)
    action.pointer_action.move_to_location(round(x), round(y)).pointer_down()
    for dx, dy in offsets:
        action.pointer_action.move_to_location(round(x + zoom * dx), round(y + zoom * dy))
    action.pointer_action.pointer_up()
    action.perform()


def test_handles_scale_flip_and_copy(opened, browser):
    _, page = opened()
    page.drag(CAR)
    pull(page, 'se', (3, 3), (8, 4))                        # about the corner opposite to it
    page.settled()
    assert boxes(page, 26000) == [[8, 24, 32, 44]]
    with held(page, Keys.SHIFT):                            # in proportion
        pull(page, 'nw', (-3, -5), (-8, -2))
    page.settled()
    assert boxes(page, 26000) == [[0, 17, 32, 44]] and page.js('return state.undo') == 1
    page.js('actions.undo()')
    page.settled()
    pull(page, 'e', (-10, 0), (-24, 0))                     # over the other side: mirrored
    page.settled()
    assert boxes(page, 26000) == [[0, 24, 8, 40]]
    page.js('actions.undo()')
    page.settled()
    before = [x.tolist() for x in page.maps()]
    pull(page, 's', (0, 9))
    page.press(Keys.ESCAPE)                                 # too late: nothing is held any more
    page.settled()
    page.js('actions.undo()')
    page.settled()
    page.drag(CAR)
    page.js('drag = beginScale({clientX: 0, clientY: 0}, handles(panes()[0])[0])')
    page.press(Keys.ESCAPE)
    assert page.js('return [drag, selected]') == [None, 26000]
    assert [x.tolist() for x in page.maps()] == before
    pull(page, 'flip')
    page.settled()
    assert page.js('return state.history') == ['open scene', 'mirror car']

    # Alt-drag copies, Shift keeps a direction; keys do the same as handles.
    with held(page, Keys.ALT, Keys.SHIFT):
        page.drag(CAR, (20, 20), (15, 8))
    page.settled()
    assert boxes(page, 26000, 26002) == [[8, 24, 24, 40], [8, 4, 24, 20]]
    assert page.js('return selected') == 26002
    for _ in range(4):
        page.press(Keys.CONTROL, Keys.ARROW_RIGHT)
    page.press('.')
    page.settled()
    (x0, y0, x1, y1), = boxes(page, 26002)
    assert x1 - x0 in (20, 21) and y1 - y0 in (16, 17) and page.js('return state.undo') == 3


def context_click(page, point):
    x, y = page.at(*point)
    for kind in ('mousePressed', 'mouseReleased'):
        page.browser.execute_cdp_cmd('Input.dispatchMouseEvent', {
            'type': kind, 'x': x, 'y': y, 'button': 'right', 'clickCount': 1})


def test_menu_isolation_and_picking(opened, browser):
    _, page = opened()
    context_click(page, CAR_2)
    assert page.js('return [selected, $("menu").hidden]') == [26001, False]
    assert focus(page) is None or page.js('return document.activeElement.role') == 'menuitem'
    for key in ('f', Keys.ENTER):                           # Flip
        page.press(key)
    page.settled()
    assert page.js('return [state.history[1], $("menu").hidden]') == ['mirror car', True]
    page.press('m')
    page.press(Keys.ESCAPE)
    assert page.js('return [selected, $("menu").hidden]') == [26001, True] and focus(page) == 'view'
    page.press('m')
    page.press(Keys.END)
    page.press(Keys.ENTER)                                  # Remove
    page.settled()
    assert boxes(page, 26001) == [None]

    # A double click isolates: nothing is painted outside, also after a part is another object.
    ActionChains(browser).double_click(browser.find_element(By.ID, 'view')).perform()
    assert page.js('return [...isolated]') == [11]          # in the middle of the page
    assert not page.js('return $("isolated").hidden')
    page.press(Keys.ESCAPE)
    assert page.js('return [isolated, selected]') == [None, 11]
    page.drag(CAR)
    page.press(Keys.ENTER)
    page.js('paintLabel = 28')
    for _ in range(2):
        page.press('r')
        page.drag((4, 20), (10, 25), (16, 30))
        page.settled()
    label, inst = page.maps()
    assert (label[24:31, 8:17] == 28).all() and (label == 28).sum() == 7 * 9
    assert page.js('return $("isolated").textContent').startswith('Only car')
    page.press('v')
    page.drag((40, 4))                                      # a click outside shows all again
    assert page.js('return [isolated, selected]') == [None, 23]

    # Alt picks the label with every tool.
    for tool in 'vb':
        page.press(tool)
        with held(page, Keys.ALT):
            page.drag(PERSON)
        assert page.js('return [paintLabel, selected]') == [24, 24000]
        page.js('paintLabel = 7')
    page.settled()
    assert page.js('return state.undo') == 4


def shift(page, *points):
    with held(page, Keys.SHIFT):
        page.drag(*points)


def test_lasso_polygon_and_straight_lines(opened, browser):
    _, page = opened()
    page.js('paintLabel = 28; setWidth(1); $("view").focus()')
    page.press('o')
    page.drag((2, 2), (12, 2), (12, 6), (2, 6))
    page.settled()
    assert (next(page.maps())[2:7, 2:13] == 28).all() and page.js('return state.undo') == 1
    page.press('y')
    for point in ((20, 2), (30, 2), (40, 10), (30, 12)):
        page.drag(point)
    page.press(Keys.BACKSPACE)
    page.press(Keys.BACKSPACE)
    page.drag((30, 12))
    page.drag((20, 12))
    assert page.js('return [polygon.points.length, state.undo]') == [4, 1]
    page.drag((20, 2))                                      # the first corner closes it
    page.settled()
    label, _ = page.maps()
    assert (label[2:13, 20:31] == 28).all() and (label == 28).sum() == 11 * 11 + 5 * 11
    page.drag((50, 2))
    page.press(Keys.ESCAPE)
    assert page.js('return polygon') is None
    Select(browser.find_element(By.ID, 'to')).select_by_value('erase')
    for point in ((20, 2), (30, 2), (30, 12)):
        page.drag(point)
    page.press(Keys.ENTER)
    page.settled()
    assert (next(page.maps()) == 28).sum() < 11 * 11 and page.js('return state.undo') == 3
    Select(browser.find_element(By.ID, 'to')).select_by_value('new')

    # Shift paints a line from the end of the last stroke, a straight one, or a square.
    page.js('actions.reset()')
    page.press('b')
    page.drag((4, 44))
    shift(page, (20, 44))
    page.settled()
    assert (next(page.maps())[44] == 28).nonzero()[0].tolist() == list(range(4, 21))
    page.press('r')
    shift(page, (40, 2), (43, 9), (46, 12))
    page.settled()
    label, _ = page.maps()
    assert (label[2:13, 40:51] == 28).all() and (label[:24] == 28).sum() == 11 * 11

    # By keys: arrows move the cursor, Enter presses and releases.
    page.js('actions.reset(); setTool("rectangle"); cursor = [10, 4]')
    page.press(Keys.ENTER)
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ENTER):
        page.press(key)
    page.settled()
    assert (next(page.maps()) == 28).nonzero()[0].tolist() == [4, 4, 5, 5, 6, 6]


def test_several_objects_at_once(opened, browser):
    _, page = opened()
    page.drag(CAR)
    shift(page, CAR_2)
    shift(page, PERSON)
    assert page.js('return selection()') == [24000, 26001, 26000]
    shift(page, PERSON)
    assert page.js('return selection()') == [26001, 26000]
    assert page.js('return $("name").textContent') == '2 objectscar'
    page.drag(CAR, (10, 20), (8, 12))
    page.settled()
    assert boxes(page, 26000, 26001) == [[4, 8, 20, 24], [44, 8, 52, 24]]
    page.press(Keys.CONTROL, 'z')
    page.settled()
    page.wait('return document.querySelectorAll("#styles img").length === 3')
    page.js('document.querySelectorAll("#styles button")[2].click()')
    page.settled()
    assert page.js('return state.objects.filter(({label}) => label === 26).map(({style}) => style)'
                   ) == [2, 2]
    Select(browser.find_element(By.ID, 'relabel')).select_by_visible_text('bus')
    page.settled()
    assert page.js('return state.history.at(-1)') == 'relabel 2 objects to bus'
    assert (next(page.maps()) == 28).sum() == 16 * 16 + 8 * 16

    page.drag((2, 20), (20, 30), (40, 42))                  # a frame around the bus and the person
    assert page.js('return selection().sort()') == [24000, 26000]
    assert page.js('return $("relabel").selectedOptions[0].textContent') == 'several labels'
    shift(page, (44, 20), (50, 30), (60, 42))
    assert page.js('return selection().length') == 3
    pull(page, 'nw', (4, 2), (8, 8))
    page.settled()
    assert boxes(page, 26000, 24000, 26001) == [
        [16, 32, 29, 40], [29, 32, 36, 40], [49, 32, 56, 40]]
    now = page.js('return state.undo')
    page.press(Keys.DELETE)
    page.settled()
    assert page.js('return [selected, state.undo, state.objects.length]') == [None, now + 1, 3]
    page.press('n')
    page.press(Keys.SHIFT, 'n')
    assert page.js('return selection().length') == 2


def test_history_and_wipe(opened, browser):
    _, page = opened()
    page.wait('return originalOf === state.opened')
    page.js(f'edit({BUS}); edit({{do: "relabel", object: 23, label: "bus"}}); '
            'edit({do: "remove", object: 26000})')
    page.settled()
    states = Select(browser.find_element(By.ID, 'states'))
    assert [option.text for option in states.options] == [
        'Open scene', 'Rectangle bus', 'Relabel sky to bus', 'Remove car']
    version = page.js('return state.version')
    states.select_by_visible_text('Rectangle bus')
    page.settled()
    assert page.js('return [state.undo, state.redo, state.version]') == [1, 2, version + 1]
    assert page.js('return $("states").value') == '1'
    page.js('$("states").focus()')
    page.press(Keys.ARROW_DOWN)
    page.press(Keys.ARROW_DOWN)
    page.settled()
    assert page.js('return [state.undo, document.activeElement.id]') == [3, 'states']

    page.js('setView("labels")')
    page.click('wipe')
    colours = {label['name']: label['colour'] for label in page.js('return state.labels')}
    assert (page.colour(20, 4), page.colour(44, 4)) == (colours['sky'], colours['bus'])
    x, y = page.at(32, 20)
    page.js('setWipe((arguments[0] - $("view").getBoundingClientRect().left) / panes()[0].w)', x)
    page.drag((32, 20), (40, 20), (56, 20))                 # the line is dragged with every tool
    assert (page.colour(44, 4), page.colour(60, 4)) == (colours['sky'], colours['bus'])
    page.js('$("wipeat").focus()')
    page.press(Keys.HOME)
    assert page.colour(20, 4) == colours['bus']
    page.press('x')
    assert page.js('return [wiping, state.undo]') == [False, 3]


def test_values_of_the_curves_of_a_run(trained, browser):
    """On its page index.html, opened from the disk, with the pointer and with keys."""
    browser.get((trained / 'index.html').as_uri())
    svg = browser.find_element(By.CSS_SELECTOR, 'figure svg')
    figure = svg.find_element(By.XPATH, '..')
    ActionChains(browser).move_to_element(svg).perform()
    assert figure.text.startswith('learning rate') and 'step 4: 0.0002' in figure.text
    ActionChains(browser).move_to_element(figure).perform()
    browser.execute_script('arguments[0].focus()', svg)
    ActionChains(browser).send_keys(Keys.ARROW_LEFT).perform()
    assert 'step 2: 0.0002' in figure.text
    heads = browser.find_elements(By.CSS_SELECTOR, '.heads span')
    picture = browser.find_element(By.CSS_SELECTOR, '#sheets img')
    assert len(heads) == 4 and heads[3].rect['x'] - heads[0].rect['x'] == pytest.approx(
        0.75 * picture.rect['width'], abs=2)
    assert not browser.get_log('browser')


def test_the_token_leaves_the_address(opened, browser, monkeypatch):
    """A reload and a second tab from the printed address go on; other tabs and origins do not."""
    seen = []
    monkeypatch.setattr(http_server.Handler, 'log_request', lambda self, *_: seen.append(
        (self.path, self.headers.get('Referer'))))
    server, page = opened()
    plain = f'http://{server.names[0]}/'
    assert browser.current_url == plain
    page.js('location.reload()')
    page.wait('return labels !== null && shownVersion === state.version')
    page.js(f'edit({BUS})')
    page.settled()
    page.js('actions.undo()')
    page.settled()
    history = browser.execute_cdp_cmd('Page.getNavigationHistory', {})['entries']
    assert not [entry for entry in history if server.token in entry['url']]
    assert [path for path, _ in seen if server.token in path] == [f'/?token={server.token}']
    assert not [referer for _, referer in seen if referer]

    first = browser.current_window_handle
    browser.switch_to.new_window('tab')
    try:
        browser.get(plain)                                  # the storage is that of a tab
        WebDriverWait(browser, 60).until(lambda _: browser.execute_script(
            'return !$("lost").hidden'))
        assert 'The token is missing or wrong. Open the address that was printed.' in (
            browser.execute_script('return $("lost").textContent'))
        assert browser.execute_script('return state') is None
        assert Page(browser, server.address).js('return location.href') == plain
        browser.get(plain)
        page.wait('return state !== null')
    finally:
        browser.close()
        browser.switch_to.window(first)


# Returns [text, contrast] of what is written with less than 4.5:1 (WCAG 2, 1.4.3).
CONTRAST = '''
function parse(colour) {
  const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
  return [r, g, b, a];
}
const over = (under, [r, g, b, a]) => [r, g, b].map((value, i) => value * a + under[i] * (1 - a));
function luminance(rgb) {
  const [r, g, b] = rgb.map(value => value / 255)
    .map(value => value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
}
function backgrounds(element) {         // over a picture: on black and on white
  const layers = [];
  for (let at = element; at && at.id !== 'stage'; at = at.parentElement) {
    layers.unshift(parse(getComputedStyle(at).backgroundColor));
    if (layers[0][3] === 1) return [layers.reduce(over, [0, 0, 0])];
  }
  return [[0, 0, 0], [255, 255, 255]].map(base => layers.reduce(over, base));
}
const found = [], measured = [];
for (const element of document.querySelectorAll('body, body *')) {
  const own = [...element.childNodes].filter(({nodeType}) => nodeType === 3);
  const text = element.placeholder || element.selectedOptions?.[0]?.text
    || own.map(({data}) => data.trim()).join('');
  const hidden = !element.checkVisibility() || element.matches('script, style, option, .unseen');
  if (!text || hidden) continue;
  const part = element.placeholder ? '::placeholder' : null;
  const colour = parse(getComputedStyle(element, part).color);
  for (const back of backgrounds(element)) {
    const [a, b] = [luminance(over(back, colour)), luminance(back)].sort((a, b) => a - b);
    measured.push(text);
    if ((b + .05) / (a + .05) < 4.5) found.push([text, (b + .05) / (a + .05)]);
  }
}
return [found, measured];
'''


def emulate(browser, **features):
    browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [
        {'name': name.replace('_', '-'), 'value': value} for name, value in features.items()]})


def test_themes_and_contrast(opened, browser):
    """All text has a contrast of 4.5:1 in both themes. A button overrides the system's theme."""
    server, page = opened()
    page.drag(CAR)
    page.wait('return document.querySelectorAll("#styles img").length === '     # no answer is due
              'document.querySelectorAll("#styles button").length')
    page.js('note("bad", true, 0); ask("question", {Open: () => {}}); setView("labels")')
    page.js('beating = true; for (const id of ["lost", "unkept", "badge", "unsaved", "tip"]) '
            '{ $(id).hidden = false; $(id).append(id); }; $("sheet").show()')
    theme = 'return document.documentElement.dataset.theme'
    try:
        for system in ('dark', 'light'):
            emulate(browser, prefers_color_scheme=system)
            page.wait(f'{theme} === "{system}"')
            found, measured = page.js(CONTRAST)
            assert not found
            words = ' '.join(measured)
            for word in ('Redo', 'car', 'lost', 'unkept', 'badge', 'unsaved', 'tip', 'redo', '%',
                         'Find a label', 'not learned', 'a new object'):
                assert word in words
        page.js('$("sheet").close(); $("theme").click()')
        assert page.js(theme) == 'dark' and page.js('return $("theme").ariaPressed') == 'false'
        page = Page(browser, server.address)
        assert page.js(theme) == 'dark'                     # the choice is kept
        page.js('$("theme").click()')
        emulate(browser, prefers_color_scheme='dark')
        page.wait(f'{theme} === "dark"')                    # as the system again
        emulate(browser, forced_colors='active', prefers_reduced_motion='reduce')
        pressed, other, swatch, bar = page.js(
            'const of = (name, what) => getComputedStyle(document.querySelector(name))[what];'
            'return [of("[data-tool=select]", "backgroundColor"), of("[data-tool=pan]", '
            '"backgroundColor"), of("#paintswatch", "backgroundColor"), of("#bar", '
            '"transitionDuration")]')
        assert pressed != other and bar == '0s'
        assert swatch == page.js('return cssColour(state.labels[paintLabel].colour)'
                                 '.replaceAll(",", ", ")')
    finally:
        emulate(browser)


def test_names_and_states_for_screen_readers(opened, browser):
    _, page = opened()
    said = 'return $("spoken").textContent'
    page.drag(CAR)
    assert page.js(said) == 'car, object 26000, style 0'
    page.js('style(1)')
    page.settled()
    assert page.js(said) == 'car, object 26000, style 1'
    page.js('actions.like()')
    controls = [node for node in browser.execute_cdp_cmd('Accessibility.getFullAXTree', {})['nodes']
                if not node['ignored'] and any(each['name'] == 'focusable'
                                               for each in node.get('properties', ()))]
    assert len(controls) > 40
    unnamed = [node['role']['value'] for node in controls if not node['name'].get('value')]
    assert not unnamed
    pressed = {node['name']['value'] for node in controls for each in node['properties']
               if each['name'] == 'pressed' and each['value']['value'] == 'true'}
    names = {'Select', 'Picture', 'Same as ...', 'Style 1'}
    assert names <= pressed and len(pressed - names - {'Light theme'}) == 1     # a label is painted
    page.press(Keys.ESCAPE)
    page.press(Keys.ESCAPE)
    assert page.js(said) == 'no object is selected'
    assert page.js('return document.querySelector("a, button, input").id') == 'skip'
    page.js('$("skip").focus()')                        # it skips the buttons
    assert browser.find_element(By.ID, 'skip').rect['width'] > 40
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    assert page.js('return document.activeElement.id') == 'view'
    page.js('$("before").focus()')
    ActionChains(browser).key_down(' ').perform()
    assert page.js('return before')
    ActionChains(browser).key_up(' ').perform()
    assert not page.js('return before')


def test_labels_are_told_apart_without_colours(opened, browser):
    """The name is at the pointer, equal colours are hatched, and dark labels have light borders."""
    _, page = opened()
    page.js('setView("labels")')
    move = ActionBuilder(browser)
    move.pointer_action.move_to_location(*map(round, page.at(*CAR)))
    move.perform()
    assert page.js('return [$("tip").hidden, $("tip").textContent]') == [False, 'car']
    page.js('setView("picture")')
    move.perform()
    page.drag((28, 28))
    assert page.js('return $("tip").hidden')

    page.js('edit({do: "paint", label: "static", rectangle: [0, 0, 31, 23]}, '
            '{do: "paint", label: "static", rectangle: [8, 8, 23, 23], to: "new"})')
    page.settled()
    pixels = np.array(page.js(
        'return [...labelMap.getContext("2d").getImageData(0, 0, 64, 48).data]')).reshape(48, 64, 4)
    hatched = pixels[:8, :8, 0].astype(int)
    assert set(hatched.ravel().tolist()) == {0, 120} and 0.05 < (hatched > 0).mean() < 0.4
    assert (pixels[7, 8:24, :3] == 120).all()               # between two black objects
    backgrounds = page.js('return [...document.querySelectorAll("#legend .swatch")].map('
                          'each => each.style.background)')
    assert 'gradient' in backgrounds[0] and len(set(backgrounds)) == len(backgrounds)
