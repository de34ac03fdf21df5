"""Write a picture of the editor's page in a browser, with an object selected.

    python benchmarks/screenshot.py --run runs/demo --label map.png --object 26001 \\
        --out docs/edit.png

--do runs JavaScript in the page before, such as `edit({do: "remove", object: selected})`.
"""
import argparse
import io
from pathlib import Path
import subprocess
import sys
import tempfile

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tests' / 'editor'))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tests'))
from conftest import ROOT
from test_page import Page, chromium


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--object', type=int, help='id in the instance map (default: the largest '
                                                   'thing)')
    parser.add_argument('--size', default='1280x800')
    parser.add_argument('--do', default='')
    args, words = parser.parse_known_args()
    w, h = map(int, args.size.split('x'))
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen([sys.executable, ROOT / 'p2phd.py', 'edit', '--no-browser',
                                    '--out', folder, *words], stdout=subprocess.PIPE, text=True)
        browser = chromium(folder)
        try:
            address = next(line for line in process.stdout if line.startswith('http'))
            browser.set_window_size(w, h)
            page = Page(browser, address.strip())
            browser.set_window_size(w, h + h - page.js('return innerHeight'))   # its frame
            page.js('selected = arguments[0] ?? state.objects.filter(({label}) => '
                    'state.labels[label].thing).sort((a, b) => b.pixels - a.pixels)[0].id; '
                    'show(); showStyles()', args.object)
            page.js(args.do)
            page.settled()
            page.wait('const all = document.querySelectorAll("#styles button"); '
                      'return selected === null || !state.encoder || all.length > 0 && '
                      'document.querySelectorAll("#styles img").length === all.length')
            page.js('document.activeElement.blur()')
            picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert('RGB')
            picture.save(args.out, optimize=True)
            print(args.out)
        finally:
            browser.quit()
            process.terminate()


if __name__ == '__main__':
    main()
