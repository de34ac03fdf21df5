// What is selected: the object `selected`, and `more`. What is isolated.
let more = new Set();                   // ids of further objects that are selected
let isolated = null;                    // ids: all others are dimmed, and nothing is painted there

const selection = () => objects.has(selected) ? [selected, ...more] : [];
// What an edit of the selected objects is for, and where painting is allowed.
const chosen = () => more.size ? {objects: selection()} : {object: selected};
const within = () => isolated ? {within: [...isolated].filter(id => objects.has(id))} : {};
const idAt = at => at && inside(at) ? insts[at[1] * state.size[0] + at[0]] : null;
const onSelected = at => selection().includes(idAt(at));

// at: the point that was clicked.
function select(ids, at = null) {
  [selected = null] = ids;
  more = new Set(ids.slice(1)); clicked = at;
  showObject(); showPaint(); draw();
}
function selectAt(x, y) { if (inside([x, y])) select([idAt([x, y])], [x, y]); }
function toggle(id) {
  const ids = selection();
  select(ids.includes(id) ? ids.filter(other => other !== id) : [id, ...ids]);
}

// Returns a point of the part that Split makes an object, or null if the selected object is in one piece:
// the point that was clicked, or the first one of an object that keys have selected.
let parts = {};                         // what was found last
function partToSplit() {
  const [w] = state.size, {box: [, y0]} = objects.get(selected);
  const at = onSelected(clicked) ? clicked : [insts.indexOf(selected, y0 * w) % w, y0];
  const of = `${mapsVersion} ${selected} ${at}`;
  if (parts.of !== of) parts = {of, at: partSize(at) < objects.get(selected).pixels ? at : null};
  return parts.at;
}

// Returns the number of pixels of the same object and label that are connected to a point.
function partSize([x, y]) {
  const [w, h] = state.size, start = y * w + x, seen = new Uint8Array(w * h), stack = [start];
  const reach = i => { if (!seen[i] && insts[i] === insts[start] && labels[i] === labels[start]) { seen[i] = 1; stack.push(i); } };
  let count = 0;
  seen[start] = 1;
  while (stack.length) {
    const i = stack.pop(), column = i % w;
    count++;
    if (column > 0) reach(i - 1);
    if (column < w - 1) reach(i + 1);
    if (i >= w) reach(i - w);
    if (i + w < w * h) reach(i + w);
  }
  return count;
}

// Selects the next object (by: 1) or the previous one (-1), in the order of labels; or adds it.
function selectNext(by, add = false) {
  const ids = [...state.objects].sort((a, b) => a.label - b.label || a.id - b.id).map(({id}) => id);
  const next = ids.at((ids.indexOf(selected) + (selected === null && by < 0 ? 0 : by)) % ids.length);
  select([next, ...add ? selection().filter(id => id !== next) : []]);
}

function selectAlike() {
  const labels = new Set(selection().map(id => objects.get(id).label));
  select(state.objects.filter(({label}) => labels.has(label)).map(({id}) => id));
}

// Forgets what the present state does not have.
function keepSelection() {
  const ids = [selected, ...more].filter(id => objects.has(id));
  [selected = null] = ids;
  more = new Set(ids.slice(1));
  if (isolated && !within().within.length) isolate(null);
}

// Returns the box [x0, y0, x1, y1] around objects.
function boxOf(ids) {
  const boxes = ids.map(id => objects.get(id).box);
  return [0, 1, 2, 3].map(i => Math[i < 2 ? 'min' : 'max'](...boxes.map(box => box[i])));
}

// Selects the objects that `before` does not have; they belong to what is isolated.
function selectFresh(before) {
  const ids = [...objects.keys()].filter(id => !before.has(id));
  if (isolated) ids.forEach(id => isolated.add(id));
  if (ids.length) select(ids);
}

async function copy(by = null) {
  if (selected === null) return;
  const ids = new Set(objects.keys()), [, , x1, y1] = boxOf(selection());
  by ??= [x1 + 12 < state.size[0] ? 12 : -12, y1 + 6 < state.size[1] ? 6 : -6];
  const done = await edit({do: 'move', ...chosen(), by, copy: true});
  if (done) selectFresh(ids);
  return done;
}

function move(dx, dy, how = {}) {
  if (selected !== null) return edit({do: 'move', ...chosen(), by: [dx, dy], ...how});
}

function isolate(ids) {
  isolated = ids?.length ? new Set(ids) : null;
  $('isolated').hidden = !isolated;
  if (isolated) {
    const name = ids.length > 1 ? `${ids.length} objects` : state.labels[objects.get(ids[0]).label].name;
    $('isolated').textContent = `Only ${name} \u2715`;
  }
  draw();
}

// Returns a canvas that is black where the objects are.
function maskOf(ids) {
  const [w, h] = state.size, [x0, y0, x1, y1] = boxOf(ids), is = new Set(ids);
  const pixels = new ImageData(x1 - x0, y1 - y0), out = new Uint32Array(pixels.data.buffer);
  for (let y = y0, i = 0; y < y1; y++) for (let x = x0; x < x1; x++, i++)
    if (is.has(insts[y * w + x])) out[i] = 0xff000000;
  const canvas = canvasOf(w, h);
  canvas.getContext('2d').putImageData(pixels, x0, y0);
  return canvas;
}
function composed(canvas, how, image) {
  const g = canvas.getContext('2d');
  g.globalCompositeOperation = how;
  if (image) g.drawImage(image, 0, 0); else { g.fillStyle = '#0b0d10c8'; g.fillRect(0, 0, ...state.size); }
  return canvas;
}

// Returns the shade over all that is not isolated.
let dimmed = {};
function shadeCanvas() {
  const ids = within().within, of = `${mapsVersion} ${ids}`;
  if (dimmed.of !== of) dimmed = {of, canvas: composed(maskOf(ids), 'source-out')};
  return dimmed.canvas;
}
