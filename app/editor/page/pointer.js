// Mouse, pen and fingers on the canvas.
let cursor = null;                      // the pixel under the pointer, or where the arrow keys moved it
let cursorByKeys = false, shiftHeld = false;
function onStage(event) {
  const box = $('view').getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}
function paneAt(event) {
  const [x, y] = onStage(event);
  return panes().findLast(pane => x >= pane.x && y >= pane.y) || panes()[0];
}
// Returns the position of an event in the picture: exact, and as a pixel.
function exact(event, pane) {
  const [x, y] = onStage(event);
  return [(x - pane.x - left) / zoom, (y - pane.y - top_) / zoom];
}
function place(event) {                 // a stroke stays in the pane where it began
  return exact(event, drag?.pane || paneAt(event)).map(Math.floor);
}
const inside = ([x, y]) => state && x >= 0 && y >= 0 && x < state.size[0] && y < state.size[1];

$('view').onpointerdown = event => {
  if (!state || event.button > 1) return;
  $('view').setPointerCapture(event.pointerId);
  if (event.pointerType === 'touch') fingers.set(event.pointerId, [event.clientX, event.clientY]);
  drag = begin(event);
  event.preventDefault(); $('view').focus(); draw();
};

// Returns what a press begins.
function begin(event) {
  const [x, y] = place(event), pane = paneAt(event), start = {pane, x, y, from: onStage(event)};
  if (fingers.size > 1) return {kind: 'fingers', ...span()};    // in place of what the first one began
  if (event.button === 1 || spaceHeld || tool === 'pan')
    return {kind: 'pan', x: event.clientX - left, y: event.clientY - top_};
  if (onWipe(event)) return {kind: 'wipe', pane};
  if (tool === 'select' && !pickFor) {
    const handle = handleAt(event);
    if (handle) return handle.name === 'flip' ? {kind: 'flip', ...start} : beginScale(event, handle);
    if (event.altKey && inside([x, y]) && !onSelected([x, y])) selectAt(x, y);
    return {kind: onSelected([x, y]) ? 'move' : 'frame', ...start, dx: 0, dy: 0};
  }
  if (event.altKey) return {kind: 'pick', ...start};
  if (STROKES.includes(tool) && !pickFor) return beginStroke([x, y], pane, event.shiftKey);
  return {kind: 'click', ...start};
}

const fingers = new Map();              // {id of a touch: [x, y] on the screen}
function span() {
  const [[x0, y0], [x1, y1]] = [...fingers.values()];
  return {x: (x0 + x1) / 2, y: (y0 + y1) / 2, far: Math.max(1, Math.hypot(x1 - x0, y1 - y0))};
}
function pinch() {
  const box = $('view').getBoundingClientRect(), now = span();
  left += now.x - drag.x; top_ += now.y - drag.y;
  zoomAt(now.x - box.left, now.y - box.top, now.far / drag.far);
  Object.assign(drag, now);
}

// What tools do where they are clicked. add: the object is selected besides the others.
function clickAt(x, y, add = false) {
  if (tool === 'polygon' && !pickFor) return addCorner([x, y], add);
  if (!inside([x, y])) return add || select([]);
  const at = idAt([x, y]);
  if (pickFor) {
    const which = pickFor === 'like' && !more.size && $('all').checked ? {label: objects.get(selected).label} : chosen();
    const how = pickFor === 'like' ? {do: 'like', other: at} : {do: 'move', behind: [at]};
    pickFor = null;
    if (more.size || at !== selected) edit({...how, ...which}); else showObject();
  } else if (tool === 'fill') fillAt(x, y);
  else if (tool === 'pick') pick(x, y);
  else if (add) toggle(at);
  else {
    if (isolated && !isolated.has(at)) isolate(null);
    selectAt(x, y);
  }
}

function pick(x, y) {
  if (!inside([x, y])) return;
  paintLabel = labels[y * state.size[0] + x];
  showLegend(); selectAt(x, y);
}

$('view').onpointermove = event => {
  if (!state) return;
  shiftHeld = event.shiftKey;
  if (fingers.has(event.pointerId)) fingers.set(event.pointerId, [event.clientX, event.clientY]);
  if (drag?.kind === 'fingers') { if (fingers.size > 1) pinch(); return; }
  cursorByKeys = false;
  pointAt(place(event));
  if (drag) dragTo(event);
  $('view').style.cursor = cursorAt(event);
  draw();
};

// Says what is under the cursor.
function pointAt(at) {
  cursor = at;
  hovered = idAt(at);
  tell(hovered === null ? '' : `${state.labels[labels[at[1] * state.size[0] + at[0]]].name}, object ${hovered}   ${at.join(', ')}`);
}
function tell(text) { $('hover').textContent = text; }

function dragTo(event) {
  const [x, y] = cursor, {kind} = drag;
  if (drag.from) {                      // a hand that trembles still clicks
    const [u, v] = onStage(event);
    drag.far ||= Math.hypot(u - drag.from[0], v - drag.from[1]) > (event.pointerType === 'touch' ? 10 : 3);
  }
  if (kind === 'pan') { left = event.clientX - drag.x; top_ = event.clientY - drag.y; fitted = false; }
  if (kind === 'wipe') setWipe((onStage(event)[0] - drag.pane.x) / drag.pane.w);
  if (kind === 'scale') scaleTo(event);
  if (kind === 'stroke') extendStroke([x, y], event.shiftKey);
  if (kind !== 'move' && kind !== 'frame') return;
  drag.dx = x - drag.x; drag.dy = y - drag.y;
  if (kind === 'frame' || !drag.far) return;
  if (event.shiftKey) drag[Math.abs(drag.dx) < Math.abs(drag.dy) ? 'dx' : 'dy'] = 0;
  tell(`${drag.dx}, ${drag.dy}`);
}

function cursorAt(event) {
  if (drag?.kind === 'pan') return 'grabbing';
  if (tool === 'pan' || spaceHeld) return 'grab';
  if (drag?.kind === 'wipe' || !drag && onWipe(event)) return 'ew-resize';
  if (drag?.cursor) return drag.cursor;
  if (pickFor) return 'copy';
  if (tool !== 'select') return event.altKey ? 'cell' : 'crosshair';
  const handle = handleAt(event);
  return handle ? handle.cursor : drag?.kind === 'frame' ? 'crosshair' : hovered !== null && event.altKey ? 'copy'
    : drag?.kind === 'move' || onSelected(cursor) ? 'move' : 'default';
}

$('view').onpointerup = $('view').onpointercancel = event => {
  const done = drag;
  fingers.delete(event.pointerId);
  if (done?.kind === 'fingers' && fingers.size) return;     // until both have left
  const matrix = done && dragMatrix();
  drag = null;
  if (done && event.type === 'pointerup') finish(done, event, matrix);
  draw();
};

function finish(done, event, matrix) {
  const {kind, x, y, dx, dy, far} = done;
  const shown = edited => done.ghost && shownUntilDone({...done.ghost, matrix}, edited);
  if (kind === 'click') clickAt(x, y, event.shiftKey);
  if (kind === 'pick' || kind === 'move' && !far && event.altKey) pick(x, y);
  else if (kind === 'move' && !far && event.shiftKey) toggle(idAt([x, y]));
  else if (kind === 'move' && !far) { if (more.size) selectAt(x, y); else { clicked = [x, y]; showObject(); } }
  else if (kind === 'move' && (dx || dy)) shown(event.altKey ? copy([dx, dy]) : move(dx, dy));
  if (kind === 'flip') move(0, 0, {flip: true});
  if (kind === 'scale' && done.scale.some(factor => factor !== 1))
    shown(move(0, 0, {scale: done.scale, about: done.about}));
  if (kind === 'frame' && far) selectFrame(done, event.shiftKey);
  else if (kind === 'frame') clickAt(x, y, event.shiftKey);
  if (kind === 'stroke') stroked(done);
}

// Selects the objects that lie in the frame completely.
function selectFrame({x, y, dx, dy}, add) {
  const [x0, x1] = [x, x + dx].sort((a, b) => a - b), [y0, y1] = [y, y + dy].sort((a, b) => a - b);
  const ids = state.objects.filter(({box: [u0, v0, u1, v1]}) => u0 >= x0 && v0 >= y0 && u1 <= x1 + 1 && v1 <= y1 + 1)
    .map(({id}) => id);
  select([...new Set([...ids, ...add ? selection() : []])]);
}

$('view').ondblclick = event => {
  if (!state || event.shiftKey || pickFor) return;
  if (tool === 'polygon') closePolygon();
  else if (tool === 'select' && !handleAt(event)) {
    const id = idAt(place(event));
    isolate(id === null || isolated?.has(id) ? null : [id]);
  }
};
$('view').onpointerleave = () => { cursor = hovered = null; tell(''); draw(); };

$('view').addEventListener('wheel', event => {
  event.preventDefault();
  zoomAt(...onStage(event), Math.exp(-event.deltaY / 400));
}, {passive: false});

function zoomAt(x, y, factor) {
  const pane = panes().findLast(pane => x >= pane.x && y >= pane.y) || panes()[0];
  const next = Math.min(40, Math.max(0.05, zoom * factor)), by = next / zoom;
  left = (x - pane.x) * (1 - by) + left * by; top_ = (y - pane.y) * (1 - by) + top_ * by;
  zoom = next;
  fitted = false; lastPane = panes()[0];
  draw();
}
