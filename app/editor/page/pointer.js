// Mouse, pen and fingers on the canvas.
let cursor = null;
function paneAt(event) {
  const box = $('view').getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  return panes().findLast(pane => x >= pane.x && y >= pane.y) || panes()[0];
}
function place(event) {
  const box = $('view').getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  const pane = drag?.pane || paneAt(event);           // a stroke stays in the pane where it began
  return [Math.floor((x - pane.x - left) / zoom), Math.floor((y - pane.y - top_) / zoom)];
}
const inside = ([x, y]) => state && x >= 0 && y >= 0 && x < state.size[0] && y < state.size[1];

$('view').onpointerdown = event => {
  if (!state || event.button > 1) return;
  $('view').setPointerCapture(event.pointerId);
  if (event.pointerType === 'touch') fingers.set(event.pointerId, [event.clientX, event.clientY]);
  const [x, y] = place(event);
  if (fingers.size > 1) drag = {kind: 'fingers', ...span()};    // in place of what the first one began
  else if (event.button === 1 || spaceHeld || tool === 'pan')
    drag = {kind: 'pan', x: event.clientX - left, y: event.clientY - top_};
  else if (['brush', 'erase', 'rectangle'].includes(tool))
    beginStroke(event, [x, y]);
  else if (tool === 'select' && !liking && onSelected([x, y]))
    drag = {kind: 'move', pane: paneAt(event), x, y, dx: 0, dy: 0};
  else drag = {kind: 'click', pane: paneAt(event), x, y};
  event.preventDefault(); $('view').focus(); draw();
};

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

function beginStroke(event, point) {
  const paint = tool === 'erase' ? {} : brush();
  if (paint) drag = {kind: 'stroke', pane: paneAt(event), tool, paint, label: paint.label, width: +$('width').value, points: [point]};
}

function clickAt(x, y) {
  if (!inside([x, y])) { selected = null; return show(); }
  const at = insts[y * state.size[0] + x];
  if (tool === 'fill') fillAt(x, y);
  else if (tool === 'pick') { paintLabel = labels[y * state.size[0] + x]; showLegend(); selectAt(x, y); }
  else if (liking) {
    liking = false;
    const which = $('all').checked ? {label: objects.get(selected).label} : {object: selected};
    if (at !== selected) edit({do: 'like', ...which, other: at}); else showObject();
  } else selectAt(x, y);
}

$('view').onpointermove = event => {
  if (!state) return;
  if (fingers.has(event.pointerId)) fingers.set(event.pointerId, [event.clientX, event.clientY]);
  if (drag?.kind === 'fingers') { if (fingers.size > 1) pinch(); return; }
  const [x, y] = cursor = place(event);
  if (drag?.kind === 'pan') { left = event.clientX - drag.x; top_ = event.clientY - drag.y; fitted = false; }
  else if (drag?.kind === 'move') { drag.dx = x - drag.x; drag.dy = y - drag.y; }
  else if (drag?.kind === 'stroke') {
    const [u, v] = drag.points.at(-1), far = Math.max(...state.size);
    const next = [x, y].map(value => Math.min(2 * far, Math.max(-far, value)));
    if (u !== next[0] || v !== next[1]) drag.points.push(next);
  }
  hovered = inside([x, y]) ? insts[y * state.size[0] + x] : null;
  $('hover').textContent = hovered === null ? '' :
    `${state.labels[labels[y * state.size[0] + x]].name}, object ${hovered}   ${x}, ${y}`;
  $('view').style.cursor = drag?.kind === 'pan' || tool === 'pan' || spaceHeld ? 'grab' : liking ? 'copy'
    : tool === 'select' ? (hovered === selected && hovered !== null ? 'move' : 'default') : 'crosshair';
  draw();
};

$('view').onpointerup = $('view').onpointercancel = event => {
  const done = drag;
  fingers.delete(event.pointerId);
  if (done?.kind === 'fingers' && fingers.size) return;     // until both have left
  drag = null;
  if (done?.kind === 'click' && event.type === 'pointerup') clickAt(done.x, done.y);
  if (done?.kind === 'move' && event.type === 'pointerup') {
    if (Math.abs(done.dx) + Math.abs(done.dy) > 0) move(done.dx, done.dy);
    else { clicked = [done.x, done.y]; showObject(); }
  }
  if (done?.kind === 'stroke' && event.type === 'pointerup') stroked(done);
  draw();
};
$('view').onpointerleave = () => { cursor = hovered = null; $('hover').textContent = ''; draw(); };

async function fillAt(x, y) {
  const paint = brush();
  if (paint && await edit({do: 'paint', fill: [x, y], ...paint})) selectAt(x, y);
}

async function stroked(stroke) {
  const {tool, width, points, paint} = stroke;
  const shape = tool === 'rectangle' ? {rectangle: [...points[0], ...points.at(-1)]} : {brush: points, width};
  strokes.push(stroke);                 // it is shown until its picture comes
  const oldIds = new Set(objects.keys());
  const done = await edit(tool === 'erase' ? {do: 'erase', ...shape} : {do: 'paint', ...shape, ...paint});
  if (!done) strokes = strokes.filter(other => other !== stroke);
  else if (shownVersion >= done.version) strokes = strokes.filter(other => other !== stroke);
  else stroke.version = done.version;
  const fresh = [...objects.keys()].find(id => !oldIds.has(id));
  if (done && tool !== 'erase' && fresh !== undefined) { selected = fresh; show(); }
  draw();
}

$('view').addEventListener('wheel', event => {
  event.preventDefault();
  const box = $('view').getBoundingClientRect();
  zoomAt(event.clientX - box.left, event.clientY - box.top, Math.exp(-event.deltaY / 400));
}, {passive: false});

function zoomAt(x, y, factor) {
  const pane = panes().findLast(pane => x >= pane.x && y >= pane.y) || panes()[0];
  const next = Math.min(40, Math.max(0.05, zoom * factor)), by = next / zoom;
  left = (x - pane.x) * (1 - by) + left * by; top_ = (y - pane.y) * (1 - by) + top_ * by;
  zoom = next;
  fitted = false; lastPane = panes()[0];
  draw();
}
