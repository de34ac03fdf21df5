// Handles around the selected objects, with which they are scaled and mirrored.
const SIDES = {nw: [-1, -1], n: [0, -1], ne: [1, -1], e: [1, 0], se: [1, 1], s: [0, 1], sw: [-1, 1], w: [-1, 0]};
const CURSORS = {nw: 'nwse', se: 'nwse', ne: 'nesw', sw: 'nesw', n: 'ns', s: 'ns', e: 'ew', w: 'ew'};

// Returns the handles in a pane: their sides u and v, -1 to 1, and their place on the stage.
function handles(pane) {
  if (tool !== 'select' || pickFor || before || drag || scaling || !selection().length) return [];
  const [x0, y0, x1, y1] = boxOf(selection());
  const [l, r] = [x0, x1].map((x, i) => pane.x + left + x * zoom + 12 * i - 6);
  const [t, b] = [y0, y1].map((y, i) => pane.y + top_ + y * zoom + 12 * i - 6);
  const sides = Object.entries(SIDES).filter(([, [u, v]]) => (u || r - l > 44) && (v || b - t > 44));
  const above = t - 24, below = b + 24;
  const flip = above > pane.y + 12 ? above : below < pane.y + pane.h - 12 ? below : t + 26;
  return [...sides.map(([name, [u, v]]) => ({
    name, u, v, x: (l + r + u * (r - l)) / 2, y: (t + b + v * (b - t)) / 2, cursor: `${CURSORS[name]}-resize`})),
  {name: 'flip', x: (l + r) / 2, y: flip, cursor: 'pointer'}];
}

function handleAt(event) {
  const box = $('view').getBoundingClientRect(), near = event.pointerType === 'touch' ? 16 : 9;
  return handles(paneAt(event)).find(({x, y}) =>
    Math.hypot(event.clientX - box.left - x, event.clientY - box.top - y) < near);
}

function paintHandles(g, pane) {
  g.lineWidth = 1.5; g.fillStyle = '#fff'; g.strokeStyle = '#0c1a29';
  for (const {name, x, y} of handles(pane)) {
    g.beginPath();
    if (name !== 'flip') g.rect(x - 4.5, y - 4.5, 9, 9); else g.arc(x, y, 9, 0, 7);
    g.fill(); g.stroke();
    if (name !== 'flip') continue;
    g.beginPath();                      // two arrows that point away from a line
    for (const s of [-1, 1]) { g.moveTo(x + 2.5 * s, y - 3.5); g.lineTo(x + 6 * s, y); g.lineTo(x + 2.5 * s, y + 3.5); }
    g.moveTo(x, y - 5); g.lineTo(x, y + 5);
    g.stroke();
  }
}

const side = (s, low, high) => (low + high + s * (high - low)) / 2;

function beginScale(event, handle) {
  const box = boxOf(selection()), [x, y] = exact(event, paneAt(event));
  return {kind: 'scale', pane: paneAt(event), handle, box, scale: [1, 1], cursor: handle.cursor,
    grip: [x - side(handle.u, box[0], box[2]), y - side(handle.v, box[1], box[3])]};
}

// Scales to the pointer about the opposite side; Alt: about the middle, Shift: as much in both directions.
function scaleTo(event) {
  const {box: [x0, y0, x1, y1], handle: {u, v}, grip} = drag, at = exact(event, drag.pane);
  const ranges = [[x0, x1], [y0, y1]], sides = [u, v];
  drag.about = sides.map((s, i) => side(event.altKey ? 0 : -s, ...ranges[i]));
  let scale = sides.map((s, i) => {
    if (!s) return 1;
    const from = side(s, ...ranges[i]) - drag.about[i], to = Math.round(at[i] - grip[i]) - drag.about[i];
    const least = Math.max(0.05, 1 / (ranges[i][1] - ranges[i][0]));
    return (to / from < 0 ? -1 : 1) * Math.min(20, Math.max(least, Math.abs(to / from)));
  });
  if (event.shiftKey) {
    const most = Math.max(...scale.filter((_, i) => sides[i]).map(Math.abs));
    scale = scale.map(factor => factor < 0 ? -most : most);
  }
  drag.scale = scale;
  tell(scale.map(factor => `${Math.round(100 * factor)} %`).join(' x '));
}

// Returns how the selected objects are drawn while they are dragged or scaled: a DOMMatrix or null.
function dragMatrix() {
  if (drag?.kind === 'move' && drag.far) return new DOMMatrix().translate(drag.dx, drag.dy);
  const [x0, y0, x1, y1] = selection().length ? boxOf(selection()) : [0, 0, 0, 0];
  const [about, scale] = drag?.kind === 'scale' && drag.about ? [drag.about, drag.scale]
    : [[(x0 + x1) / 2, (y0 + y1) / 2], scaling && [scaling, scaling]];
  return scale ? new DOMMatrix().translate(...about).scale(...scale).translate(...about.map(x => -x)) : null;
}

// Returns what is drawn of the selected objects while they are dragged.
function ghost() {
  const images = {};
  const image = what => images[what] ??= composed(
    maskOf(selection()), 'source-in', what === 'labels' || shownVersion !== state.version ? labelMap : picture);
  return {image, of: selection().map(id => outlines[id] ??= outline(id))};
}
