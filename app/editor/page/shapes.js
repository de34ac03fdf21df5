// Shapes that are painted or erased: strokes of the brush, rectangles, lassos and polygons.
const STROKES = ['brush', 'erase', 'rectangle', 'lasso'];
let polygon = null;                     // the one whose corners are clicked
let lastEnd = null;                     // {at, opened}: where the last stroke of that scene ended

// Returns an edit without its shape: what is painted, or that it is erased.
function paintEdit() {
  if (tool === 'erase' || $('to').value === 'erase') return {do: 'erase', ...within()};
  const paint = brush();
  return paint && {do: 'paint', ...paint, ...within()};
}

function beginStroke(point, pane, straight) {
  const paint = paintEdit(), last = straight && ['brush', 'erase'].includes(tool) && lastEnd?.opened === state.opened;
  return paint ? {kind: 'stroke', pane, tool, paint, width: +$('width').value,
    points: last ? [lastEnd.at, point] : [point]} : null;
}

// Adds a point to the stroke. straight: the stroke is one line, the rectangle a square.
function extendStroke(point, straight) {
  const {points, tool} = drag, far = Math.max(...state.size), last = points.at(-1);
  const next = point.map(value => Math.min(2 * far, Math.max(-far, value)));
  if (tool === 'rectangle') points.splice(1, 1, straight ? square(points[0], next) : next);
  else if (straight && tool !== 'lasso') points.splice(1, points.length, next);
  else if (last[0] !== next[0] || last[1] !== next[1]) points.push(next);
}

function square([x, y], [u, v]) {
  const size = Math.max(Math.abs(u - x), Math.abs(v - y));
  return [x + (u < x ? -size : size), y + (v < y ? -size : size)];
}

// Returns the point nearest to `to` in one of eight directions from another one.
function inDirection([x, y], to) {
  const [dx, dy] = [to[0] - x, to[1] - y], turn = Math.round(Math.atan2(dy, dx) * 4 / Math.PI) * Math.PI / 4;
  const far = dx * Math.cos(turn) + dy * Math.sin(turn);
  return [Math.round(x + far * Math.cos(turn)), Math.round(y + far * Math.sin(turn))];
}

function addCorner(point, straight) {
  const last = polygon?.points.at(-1);
  if (!polygon) {
    const paint = paintEdit();
    polygon = paint && {tool: 'polygon', paint, points: [point]};
  } else if (nearFirst(point)) closePolygon();
  else if (last[0] !== point[0] || last[1] !== point[1]) polygon.points.push(straight ? inDirection(last, point) : point);
  draw();
}
const nearFirst = ([x, y]) => polygon?.points.length > 2
  && zoom * Math.hypot(x - polygon.points[0][0], y - polygon.points[0][1]) < 9;

function closePolygon() {
  const done = polygon;
  polygon = null;
  if (done?.points.length > 2) stroked(done);
  else if (done) note('A polygon needs three corners.');
  draw();
}

function dropCorner() {
  polygon.points.pop();
  if (!polygon.points.length) polygon = null;
  draw();
}

async function stroked(stroke) {
  const {tool, width, points, paint} = stroke, ids = new Set(objects.keys());
  if (tool === 'lasso' && points.length < 3) return;
  const shape = tool === 'rectangle' ? {rectangle: [...points[0], ...points.at(-1)]}
    : tool === 'lasso' || tool === 'polygon' ? {polygon: points} : {brush: points, width};
  if (shape.brush) lastEnd = {at: points.at(-1), opened: state.opened};
  if (await shownUntilDone(stroke, edit({...paint, ...shape})) && paint.do === 'paint') selectFresh(ids);
}

// Shows a stroke or a ghost until its picture comes.
async function shownUntilDone(stroke, edited) {
  strokes.push(stroke);
  const done = await edited;
  if (!done || shownVersion >= done.version) strokes = strokes.filter(other => other !== stroke);
  else stroke.version = done.version;
  draw();
  return done;
}

async function fillAt(x, y) {
  const paint = paintEdit();
  if (paint && await edit({...paint, fill: [x, y]})) selectAt(x, y);
}

function paintStroke(g, {tool, paint, points, width, matrix, of, image}, what) {
  if (matrix) return paintGhost(g, {matrix, of, image}, what);
  const [r, gr, b] = paint.do === 'erase' ? [255, 255, 255] : state.labels[paint.label].colour;
  g.strokeStyle = g.fillStyle = `rgba(${r},${gr},${b},.75)`;
  if (tool === 'rectangle') {
    const [[x0, y0], [x1, y1]] = [points[0], points.at(-1)];
    g.fillRect(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0) + 1, Math.abs(y1 - y0) + 1);
    return;
  }
  const path = new Path2D();
  points.forEach(([x, y], i) => path[i ? 'lineTo' : 'moveTo'](x + .5, y + .5));
  if (points.length === 1) path.lineTo(points[0][0] + .51, points[0][1] + .5);
  if (tool !== 'lasso' && tool !== 'polygon') {
    g.lineWidth = width; g.lineCap = g.lineJoin = 'round';
    g.stroke(path);
    return;
  }
  g.globalAlpha = .7; g.fill(path, 'evenodd'); g.globalAlpha = 1;
  line(g, path, '#000', 3); line(g, path, '#fff', 1.4);
}

function paintGhost(g, {matrix, of, image}, what) {
  g.save();
  g.transform(...['a', 'b', 'c', 'd', 'e', 'f'].map(key => matrix[key]));
  if (image) g.drawImage(image(what), 0, 0);
  g.restore();
  for (const path of of) {
    const moved = new Path2D();
    moved.addPath(path, matrix);
    line(g, moved, '#000', 3.4); line(g, moved, '#6fb3ff', 1.8);
  }
}

// Draws the polygon that is not closed yet, with a line to the cursor.
function paintCorners(g) {
  const {points} = polygon, straight = shiftHeld && cursor;
  paintStroke(g, {...polygon, points: [...points, ...cursor ? [straight ? inDirection(points.at(-1), cursor) : cursor] : []]});
  const dots = new Path2D();
  points.forEach(([x, y], i) => {
    const size = (i ? 3 : nearFirst(cursor ?? [-1e9, 0]) ? 8 : 5) / zoom;
    dots.moveTo(x + .5 + size, y + .5); dots.arc(x + .5, y + .5, size, 0, 7);
  });
  g.fillStyle = '#fff'; g.fill(dots); line(g, dots, '#000', 1.4);
}
