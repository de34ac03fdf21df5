// The canvas: picture, label map, outlines and strokes.
function mapCanvas(labels, insts) {
  const [w, h] = state.size, pixels = new ImageData(w, h), out = new Uint32Array(pixels.data.buffer);
  const asABGR = ([r, g, b]) => (255 << 24 | b << 16 | g << 8 | r) >>> 0;
  const shades = [state.labels.map(({colour}) => asABGR(colour)), state.labels.map(({colour}) => asABGR(shade(colour)))];
  const hatch = hatches(), period = Math.max(6, Math.round(w / 80)), line = Math.ceil(period / 8);
  const hatched = (number, x, y) => [y, x + y, x - y + h * period, x][number % 4] % period < line;
  for (let i = 0; i < w * h; i++) {
    const edge = (i + 1) % w && insts[i] !== insts[i + 1] || i + w < w * h && insts[i] !== insts[i + w];
    const number = hatch[labels[i]];
    out[i] = shades[edge || number && hatched(number, i % w, Math.floor(i / w)) ? 1 : 0][labels[i]];
  }
  const canvas = canvasOf(w, h);
  canvas.getContext('2d').putImageData(pixels, 0, 0);
  return canvas;
}

// Returns the border of an object as lines between pixels.
function outline(id) {
  const path = new Path2D(), [w, h] = state.size, [x0, y0, x1, y1] = objects.get(id).box;
  const is = (x, y) => x >= 0 && y >= 0 && x < w && y < h && insts[y * w + x] === id;
  for (let y = y0; y <= y1; y++) for (let start = -1, x = x0; x <= x1; x++) {
    const border = x < x1 && is(x, y) !== is(x, y - 1);
    if (border && start < 0) start = x;
    if (!border && start >= 0) { path.moveTo(start, y); path.lineTo(x, y); start = -1; }
  }
  for (let x = x0; x <= x1; x++) for (let start = -1, y = y0; y <= y1; y++) {
    const border = y < y1 && is(x, y) !== is(x - 1, y);
    if (border && start < 0) start = y;
    if (!border && start >= 0) { path.moveTo(x, start); path.lineTo(x, y); start = -1; }
  }
  return path;
}

function panes() {
  const {clientWidth: w, clientHeight: h} = $('stage');
  if (view !== 'both') return [{x: 0, y: 0, w, h, what: view}];
  const wide = w / h > state.size[0] / state.size[1];         // panes side by side, or one above the other
  return wide ? [{x: 0, y: 0, w: w / 2, h, what: 'picture'}, {x: w / 2, y: 0, w: w / 2, h, what: 'labels'}]
    : [{x: 0, y: 0, w, h: h / 2, what: 'picture'}, {x: 0, y: h / 2, w, h: h / 2, what: 'labels'}];
}

function fit() {
  if (!state) return;
  const [pane] = panes(), [w, h] = state.size;
  zoom = Math.max(0.05, Math.min((pane.w - 24) / w, (pane.h - 24) / h));
  left = (pane.w - w * zoom) / 2; top_ = (pane.h - h * zoom) / 2;
  fitted = true; lastPane = pane;
  draw();
}

// Keeps zoom and middle when the stage has another size, unless the picture just fits into it.
function resized() {
  if (!state) return;
  if (fitted) return fit();
  const [pane] = panes();
  left += (pane.w - lastPane.w) / 2; top_ += (pane.h - lastPane.h) / 2;
  lastPane = pane;
  draw();
}

let drawing = false;
function draw() {
  if (drawing || !labelMap) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; paintStage(); });
}

function paintStage() {
  const canvas = $('view'), {clientWidth: w, clientHeight: h} = $('stage'), ratio = devicePixelRatio;
  if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
    canvas.width = Math.round(w * ratio); canvas.height = Math.round(h * ratio);
  }
  const g = canvas.getContext('2d');
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, w, h);
  for (const pane of panes()) {
    paintPane(g, pane, before && originalOf === state.opened);
    if (wipeCanShow()) paintWipe(g, pane);
    paintHandles(g, pane);
  }
  $('zoomed').textContent = `${state.size[0]} x ${state.size[1]}, ${Math.round(100 * zoom)} %`;
}

// Draws the scene as it is, or as it was opened, into a pane.
function paintPane(g, pane, old) {
  g.save();
  g.beginPath(); g.rect(pane.x, pane.y, pane.w, pane.h); g.clip();
  g.translate(pane.x + left, pane.y + top_); g.scale(zoom, zoom);
  g.imageSmoothingEnabled = pane.what !== 'labels' && zoom < 6;
  g.imageSmoothingQuality = 'high';
  const [shown, map] = old ? [original, originalMap] : [picture, labelMap];
  g.drawImage(pane.what === 'labels' || !shown ? map : shown, 0, 0);
  if (pane.what === 'blend' && shown) {
    g.globalAlpha = +$('blend').value; g.drawImage(map, 0, 0); g.globalAlpha = 1;
  }
  if (!before) paintOver(g, pane.what);
  g.restore();
}

// Draws lines of a width in pixels of the screen.
function line(g, path, colour, width, dash = []) {
  g.setLineDash(dash.map(x => x / zoom)); g.lineWidth = width / zoom; g.strokeStyle = colour;
  g.stroke(path); g.setLineDash([]);
}

function paintOver(g, what) {
  const of = id => outlines[id] ??= outline(id);
  if (isolated) g.drawImage(shadeCanvas(), 0, 0);
  if (hovered !== null && !selection().includes(hovered) && objects.has(hovered) && !drag)
    line(g, of(hovered), '#ffffffa0', 1.2);
  const matrix = dragMatrix();
  if (matrix && drag) drag.ghost ??= ghost();
  for (const id of selection()) {
    if (!matrix) line(g, of(id), '#000', 3.4);
    line(g, of(id), matrix ? '#ffffff60' : '#fff', matrix ? 1.2 : 1.8, matrix ? [3, 3] : [5, 4]);
  }
  paintMix(g);
  strokes.forEach(stroke => paintStroke(g, stroke, what));
  if (matrix) paintGhost(g, {...drag ? drag.ghost : {of: selection().map(of)}, matrix}, what);
  if (drag?.kind === 'frame' && drag.far) {
    const frame = new Path2D();
    frame.rect(drag.x, drag.y, drag.dx, drag.dy);
    line(g, frame, '#000', 2.4); line(g, frame, '#fff', 1.2, [4, 3]);
  }
  if (polygon) paintCorners(g);
  if (drag?.kind === 'stroke') paintStroke(g, drag);
  else if (cursor) paintCursor(g);
}

// Draws the circle of the brush, the line that Shift would paint, or what the arrow keys move.
function paintCursor(g) {
  const [x, y] = cursor.map(value => value + .5), path = new Path2D(), r = 10 / zoom;
  if (tool === 'brush' || tool === 'erase') {
    path.arc(x, y, +$('width').value / 2, 0, 7);
    if (shiftHeld && lastEnd?.opened === state.opened) {
      path.moveTo(...lastEnd.at.map(value => value + .5)); path.lineTo(x, y);
    }
  } else if (cursorByKeys) {
    path.moveTo(x - r, y); path.lineTo(x + r, y); path.moveTo(x, y - r); path.lineTo(x, y + r);
  } else return;
  line(g, path, '#000', 2.4); line(g, path, '#fff', 1.2);
}
