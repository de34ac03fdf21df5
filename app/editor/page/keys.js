// Buttons, lists and keys.
function setTool(next) {
  tool = next; pickFor = null; polygon = null;
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
  fit, save: () => save(), copy: () => copy(), wipe: toggleWipe,
  retry: () => { beating = false; if (state) beat(); else location.reload(); },
  fold: () => $('fold').setAttribute('aria-expanded', !document.body.classList.toggle('folded')),
  open: () => $('files').click(), photo: () => $('photofile').click(),
  help: () => { $('sheet').showModal(); $('sheet').scrollTop = 0; }, shut: () => $('sheet').close(),
  remove: () => {
    const ids = selection(), which = chosen();
    select([]);
    if (ids.length) edit({do: 'remove', ...which}).then(done => { if (!done) select(ids.filter(id => objects.has(id))); });
  },
  flip: () => move(0, 0, {flip: true}),
  isolated: () => isolate(null),
  isolate: () => isolate(isolated ? null : selection()),
  split: () => {
    const at = selected !== null && partToSplit();
    if (at) edit({do: 'split', at}).then(done => done && selectAt(...at));
  },
  random: () => style('random'), main: () => style('main'), fromphoto: () => style('photo'),
  like: () => pickOther('like'), behind: () => pickOther('behind'),
};
function pickOther(purpose) {
  if (selected === null) return;
  const next = pickFor === purpose ? null : purpose;
  setTool('select');
  pickFor = next;
  showObject();
}
for (const [id, action] of Object.entries(actions)) if ($(id)) $(id).onclick = action;
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
  const label = $('relabel').value;
  if (label && selection().some(id => objects.get(id).label !== +label)) edit({do: 'relabel', ...chosen(), label: +label});
  else if (selected !== null) showRelabel(objects.get(selected));
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
  if (event.detail && !document.querySelector('dialog[open]') && event.target.closest('button, input:not([type=search]), label') && !event.target.closest('#menu'))
    $('view').focus({preventScroll: true});
});
$('scale').oninput = () => {
  scaling = 2 ** +$('scale').value;
  $('scaled').value = `${Math.round(100 * scaling)} %`;
  draw();
};
$('scale').onchange = () => { if (scaling !== 1) move(0, 0, {scale: scaling}); };
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
  o: () => setTool('lasso'), y: () => setTool('polygon'), g: () => setTool('fill'), e: () => setTool('erase'), i: () => setTool('pick'), h: () => setTool('pan'),
  1: () => setView('picture'), 2: () => setView('labels'), 3: () => setView('both'), 4: () => setView('blend'),
  0: fit, '+': () => zoomMiddle(1.25), '=': () => zoomMiddle(1.25), '-': () => zoomMiddle(0.8),
  '[': () => setWidth(+$('width').value - 2), ']': () => setWidth(+$('width').value + 2),
  Delete: actions.remove, Backspace: () => polygon ? dropCorner() : actions.remove(), d: actions.copy, f: actions.flip, s: actions.random,
  ',': () => move(0, 0, {scale: 1 / 1.05}), '.': () => move(0, 0, {scale: 1.05}), a: selectAlike, x: toggleWipe, m: menuByKey, ContextMenu: menuByKey,
  n: add => selectNext(1, add), p: add => selectNext(-1, add), l: actions.like, k: actions.behind, '?': actions.help, c: () => { before = true; draw(); },
  Escape: () => {
    if (polygon) polygon = null;
    else if (pickFor || drag) { pickFor = drag = null; }
    else if (isolated) isolate(null);
    else select([]);
    show();
  },
  ' ': () => { spaceHeld = true; },
};
// Arrow keys move the selected objects, the view, or with other tools a cursor, at which Enter presses.
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
function arrow(dx, dy) {
  if (tool === 'select' && selected !== null && !pickFor) return move(dx, dy);
  if (tool === 'pan') { left -= 20 * dx; top_ -= 20 * dy; fitted = false; return draw(); }
  const from = cursor ?? state.size.map(side => side >> 1);
  cursorByKeys = true;
  pointAt(from.map((value, i) => Math.min(state.size[i] - 1, Math.max(0, value + [dx, dy][i]))));
  if (drag?.kind === 'stroke') extendStroke(cursor, false);
  draw();
}
function enter() {
  const done = drag;
  if (polygon && (!cursorByKeys || polygon.points.length > 1 && `${polygon.points.at(-1)}` === `${cursor}`)) closePolygon();
  else if (done) { drag = null; if (done.kind === 'stroke') stroked(done); }
  else if (tool === 'select' && !pickFor && !(cursorByKeys && cursor && !onSelected(cursor))) actions.isolate();
  else if (cursor && STROKES.includes(tool) && !pickFor) drag = beginStroke(cursor, panes()[0], shiftHeld);
  else if (cursor) clickAt(...cursor);
  draw();
}
const zoomMiddle = factor => { const [pane] = panes(); zoomAt(pane.w / 2, pane.h / 2, factor); };

document.onkeydown = event => {
  if (event.key === 'Shift') { shiftHeld = true; if (state) draw(); }
  const control = event.ctrlKey || event.metaKey;
  if (!state || document.querySelector('dialog[open]') || event.altKey || event.target.matches('select') && !control) return;
  if (event.target.matches('input[type=search]') && !(control && event.key.toLowerCase() === 's')) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  let action = null;
  if (control) {
    action = {z: event.shiftKey ? actions.redo : actions.undo, y: actions.redo, s: event.shiftKey ? saveAs : () => save()}[key];
    if (ARROWS[key] && event.target === $('view') && selected !== null)       // wider, narrower, higher, lower
      action = () => move(0, 0, {scale: ARROWS[key].map((step, i) => 1.05 ** (i ? -step : step))});
  } else if (ARROWS[key] && event.target === $('view')) action = () => arrow(...ARROWS[key].map(step => step * (event.shiftKey ? 10 : 1)));
  else if (key === 'Enter') action = event.target === $('view') && enter;
  else if (key === 'F10' && event.shiftKey) action = menuByKey;
  else if (!(key === ' ' && event.target.matches('button, input'))) action = keys[key];
  if (!action || event.repeat && [' ', 'c'].includes(key)) return;
  event.preventDefault();
  action(event.shiftKey);
};
document.onkeyup = event => {
  if (event.key === ' ') spaceHeld = false;
  if (event.key === 'Shift') { shiftHeld = false; draw(); }
  if (event.key.toLowerCase() === 'c') { before = false; draw(); }
};
window.onblur = () => { before = spaceHeld = false; draw(); };
new ResizeObserver(resized).observe($('stage'));
