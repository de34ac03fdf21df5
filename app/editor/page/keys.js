// Buttons, lists and keys.
function setTool(next) {
  tool = next; liking = false;
  for (const button of document.querySelectorAll('[data-tool]'))
    button.setAttribute('aria-pressed', button.dataset.tool === tool);
  if (state) { showObject(); draw(); }
}
function setView(next) {
  const refit = (next === 'both') !== (view === 'both');
  view = next;
  for (const button of document.querySelectorAll('[data-view]'))
    button.setAttribute('aria-pressed', button.dataset.view === view);
  $('blend').hidden = view !== 'blend';
  if (refit) fit(); else draw();
}
function setWidth(width) { $('width').value = width; $('widthout').value = $('width').value; draw(); }

const actions = {
  undo: () => edit({do: 'undo'}), redo: () => edit({do: 'redo'}), reset: () => edit({do: 'reset'}),
  fit, save, copy, retry: () => { beating = false; if (state) beat(); else location.reload(); },
  fold: () => $('fold').setAttribute('aria-expanded', !document.body.classList.toggle('folded')),
  open: () => $('files').click(), photo: () => $('photofile').click(),
  help: () => $('sheet').showModal(), shut: () => $('sheet').close(),
  remove: () => {
    const object = selected;
    selected = null;
    if (object !== null) edit({do: 'remove', object}).then(done => { if (!done) { selected = object; show(); } });
  },
  flip: () => move(0, 0, 1, true),
  split: () => {
    const at = clicked;
    if (onSelected(at)) edit({do: 'split', at}).then(done => done && selectAt(...at));
  },
  random: () => style('random'), main: () => style('main'), fromphoto: () => style('photo'),
  like: () => {
    if (selected === null) return;
    const next = !liking;
    setTool('select');
    liking = next;
    showObject();
  },
};
for (const [id, action] of Object.entries(actions)) $(id).onclick = action;
for (const button of document.querySelectorAll('[data-tool]')) button.onclick = () => setTool(button.dataset.tool);
for (const button of document.querySelectorAll('[data-view]')) button.onclick = () => setView(button.dataset.view);
$('before').onpointerdown = () => { before = true; draw(); };
$('before').onpointerup = $('before').onpointerleave = () => { before = false; draw(); };
$('blend').oninput = draw;
$('width').oninput = () => setWidth($('width').value);
$('search').oninput = showLegend;
// A label that is chosen by keys is given when Enter is pressed or the list is left.
let choosing = false;
function relabel() {
  choosing = false;
  const object = objects.get(selected);
  if (object && +$('relabel').value !== object.label) edit({do: 'relabel', object: selected, label: +$('relabel').value});
  else if (object) showRelabel(object);
}
for (const list of [$('relabel'), $('to')]) {
  let byKeys = false;
  list.onpointerdown = () => { byKeys = false; };
  list.addEventListener('keydown', event => {
    byKeys = true;
    if (list !== $('relabel') || !choosing) return;
    if (event.key === 'Escape') { choosing = false; showRelabel(objects.get(selected)); }
    if (event.key === 'Enter') { relabel(); event.preventDefault(); }
  });
  list.onchange = () => {
    if (list === $('to')) showPaint();
    else if (byKeys) choosing = true;
    else relabel();
    if (!byKeys) $('view').focus();
  };
}
$('relabel').onblur = () => { if (choosing) relabel(); };
// After a click with a pointer, keys belong to the canvas again: Space does not press the button.
document.addEventListener('click', event => {
  if (event.detail && !$('sheet').open && event.target.closest('button, input:not([type=search]), label'))
    $('view').focus({preventScroll: true});
});
$('scale').oninput = () => {
  scaling = 2 ** +$('scale').value;
  $('scaled').value = `${Math.round(100 * scaling)} %`;
  draw();
};
$('scale').onchange = () => { if (scaling !== 1) move(0, 0, scaling); };
$('scale').onblur = $('scale').onpointerup = () => { if (+$('scale').value === 0) { scaling = null; draw(); } };
$('files').onchange = () => { const files = [...$('files').files]; trying(async () => openScene(await sortFiles(files, true))); $('files').value = ''; };
$('photofile').onchange = () => { if ($('photofile').files[0]) takePhoto($('photofile').files[0]); $('photofile').value = ''; };
document.ondragover = event => event.preventDefault();
document.ondrop = event => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) dropped([...event.dataTransfer.files]);
};
window.onbeforeunload = event => { if (state?.unsaved || pending) event.preventDefault(); };

const keys = {
  v: () => setTool('select'), b: () => setTool('brush'), r: () => setTool('rectangle'),
  g: () => setTool('fill'), e: () => setTool('erase'), i: () => setTool('pick'), h: () => setTool('pan'),
  1: () => setView('picture'), 2: () => setView('labels'), 3: () => setView('both'), 4: () => setView('blend'),
  0: fit, '+': () => zoomMiddle(1.25), '=': () => zoomMiddle(1.25), '-': () => zoomMiddle(0.8),
  '[': () => setWidth(+$('width').value - 2), ']': () => setWidth(+$('width').value + 2),
  Delete: actions.remove, Backspace: actions.remove, d: copy, f: actions.flip, s: actions.random,
  n: () => selectNext(1), p: () => selectNext(-1), l: actions.like, '?': actions.help, c: () => { before = true; draw(); },
  Escape: () => { if (liking || drag) { liking = false; drag = null; } else selected = null; show(); }, ' ': () => { spaceHeld = true; },
};
const zoomMiddle = factor => { const [pane] = panes(); zoomAt(pane.w / 2, pane.h / 2, factor); };

document.onkeydown = event => {
  const control = event.ctrlKey || event.metaKey;
  if (!state || $('sheet').open || event.altKey || event.target.matches('select') && !control) return;
  if (event.target.matches('input[type=search]') && !(control && event.key.toLowerCase() === 's')) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  let action = null;
  if (control) {
    action = {z: event.shiftKey ? actions.redo : actions.undo, y: actions.redo, s: save}[key];
  } else if (key.startsWith('Arrow') && event.target === $('view') && selected !== null) {
    const far = event.shiftKey ? 10 : 1;
    action = () => move(...{ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far]}[key]);
  } else if (!(key === ' ' && event.target.matches('button, input'))) action = keys[key];
  if (!action || event.repeat && [' ', 'c'].includes(key)) return;
  event.preventDefault();
  action();
};
document.onkeyup = event => {
  if (event.key === ' ') spaceHeld = false;
  if (event.key.toLowerCase() === 'c') { before = false; draw(); }
};
window.onblur = () => { before = spaceHeld = false; draw(); };
new ResizeObserver(resized).observe($('stage'));
