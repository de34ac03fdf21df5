// The panels: the selected object, its styles, what is painted, and the labels.
// Replaces the elements of a list; the focus stays on the one with the same data-key.
function fill(list, elements) {
  const key = list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  list.replaceChildren(...elements);
  if (key !== null) elements.find(element => element.dataset.key === key)?.focus();
}

function show() {
  $('title').textContent = state.title;
  document.title = `${state.unsaved ? '* ' : ''}${state.title}`;
  $('unsaved').hidden = !state.unsaved;
  showHistory(); showObject(); showPaint(); showLegend(); draw();
}

// What waits may give something to undo or to redo.
function showHistory() {
  $('undo').disabled = $('reset').disabled = !state.undo && !pending;
  $('redo').disabled = !state.redo && !pending;
}

const cssColour = ([r, g, b]) => `rgb(${r},${g},${b})`;

function showObject() {
  const object = objects.get(selected);
  speak();
  $('object').hidden = !object; $('nothing').hidden = !!object;
  if (!object) { liking = false; return stopThumbnails(); }
  const {name} = state.labels[object.label];
  $('name').querySelector('b').textContent = name;
  $('name').querySelector('small').textContent = `object ${object.id}, ${object.pixels} pixels`;
  paintSwatch($('name').querySelector('.swatch'), object.label);
  showRelabel(object);
  $('styling').hidden = !state.encoder; $('nostyles').hidden = state.encoder;
  $('fromphoto').disabled = !state.photo;
  $('random').disabled = $('main').disabled = !state.labels[object.label].styles;
  $('split').disabled = !onSelected(clicked);
  $('scale').value = 0; $('scaled').value = '100 %'; scaling = null;
  $('like').setAttribute('aria-pressed', liking);
  showStyles();
}

// Lists the labels that an object can have; those that were never learned come last.
function showRelabel(object) {
  if (choosing) return;
  const option = ({label, name}) => Object.assign(document.createElement('option'),
    {value: label, textContent: name, selected: label === object.label});
  const group = document.createElement('optgroup');
  group.label = 'not in the training data';
  group.append(...state.labels.filter(({learned}) => !learned).map(option));
  $('relabel').replaceChildren(...state.labels.filter(({learned}) => learned).map(option),
    ...group.children.length ? [group] : []);
}

// Returns whether a point lies on the selected object.
const onSelected = at => at && selected !== null && inside(at) && insts[at[1] * state.size[0] + at[0]] === selected;

// Returns what is painted: the chosen label, or more of the selected object.
function brush() {
  const to = $('to').value, object = objects.get(selected);
  if (to !== 'selected') return {label: paintLabel, to};
  if (!object) note('Select the object that you want to extend first.');
  return object && {label: object.label, to: selected};
}

function showPaint() {
  const object = $('to').value === 'selected' && objects.get(selected);
  const label = object ? object.label : paintLabel;
  $('paintname').textContent = state.labels[label].name;
  paintSwatch($('paintswatch'), label);
}

function showLegend() {
  const areas = new Map();
  for (const {label, pixels} of state.objects) areas.set(label, (areas.get(label) || 0) + pixels);
  const query = $('search').value.toLowerCase(), all = state.size[0] * state.size[1];
  const rows = state.labels.filter(({name}) => name.toLowerCase().includes(query))
    .sort((a, b) => b.learned - a.learned || (areas.get(b.label) || 0) - (areas.get(a.label) || 0));
  fill($('legend'), rows.map(({label, name, learned}) => {
    const row = document.createElement('button'), swatch = document.createElement('span');
    swatch.className = 'swatch'; paintSwatch(swatch, label);
    row.append(swatch, name);
    row.dataset.key = label;
    row.setAttribute('aria-pressed', label === paintLabel);
    row.classList.toggle('absent', !areas.has(label));
    row.title = learned ? `Paint with ${name}` : `Paint with ${name}, which the training data lacks`;
    if (!learned) row.append(Object.assign(document.createElement('small'), {textContent: 'not learned'}));
    if (areas.has(label)) {
      const share = 100 * areas.get(label) / all;
      row.append(Object.assign(document.createElement('small'), {textContent: `${share < 10 ? share.toFixed(1) : Math.round(share)} %`}));
    }
    row.onclick = () => { paintLabel = label; showPaint(); showLegend(); };
    return row;
  }));
}

// Thumbnails are loaded one after the other after the picture, until the next click.
function stopThumbnails() { thumbnails?.abort(); thumbnails = null; }

function showStyles() {
  const object = objects.get(selected);
  if (!state.encoder) return;
  const buttons = Array.from({length: state.labels[object.label].styles}, (_, k) => {
    const button = document.createElement('button');
    button.append(Object.assign(document.createElement('span'), {textContent: k}));
    button.title = `Style ${k}`;
    button.dataset.key = k;
    button.setAttribute('aria-label', `Style ${k}`);
    button.setAttribute('aria-pressed', k === object.style);
    button.onclick = () => style(k);
    return button;
  });
  fill($('styles'), buttons);
  loadThumbnails();
}

async function loadThumbnails() {
  stopThumbnails();
  if (selected === null || !state.encoder || shownVersion !== state.version) return;
  const mine = thumbnails = new AbortController(), id = selected;
  for (const [k, button] of [...$('styles').children].entries()) {
    if (button.querySelector('img')) continue;
    try {
      const answer = await post('/thumbnail', {object: id, style: k}, mine.signal);
      const image = new Image(), blob = await answer.blob();
      if (mine.signal.aborted) return;
      image.alt = ''; image.src = URL.createObjectURL(blob);
      image.onload = () => URL.revokeObjectURL(image.src);
      button.prepend(image);
    } catch { return; }
  }
}

function style(wish) {
  const object = objects.get(selected);
  if (!object || !state.encoder) return;
  const which = $('all').checked ? {label: object.label} : {object: selected};
  return edit({do: 'style', ...which, style: wish, seed: Math.floor(Math.random() * 2 ** 31)});
}

function selectAt(x, y) {
  if (!inside([x, y])) return;
  selected = insts[y * state.size[0] + x]; clicked = [x, y];
  showObject(); showPaint(); draw();
}

// Selects the next object (by: 1) or the previous one (-1), in the order of labels.
function selectNext(by) {
  const ids = [...state.objects].sort((a, b) => a.label - b.label || a.id - b.id).map(({id}) => id);
  selected = ids.at((ids.indexOf(selected) + (selected === null && by < 0 ? 0 : by)) % ids.length);
  clicked = null;
  showObject(); showPaint(); draw();
}

async function copy() {
  if (selected === null) return;
  const oldIds = new Set(objects.keys()), [x0, y0, x1, y1] = objects.get(selected).box;
  const dx = x1 + 12 < state.size[0] ? 12 : -12, dy = y1 + 6 < state.size[1] ? 6 : -6;
  if (await edit({do: 'move', object: selected, by: [dx, dy], copy: true})) {
    selected = [...objects.keys()].find(id => !oldIds.has(id)) ?? selected;
    show();
  }
}

function move(dx, dy, scale = 1, flip = false) {
  if (selected !== null) return edit({do: 'move', object: selected, by: [dx, dy], scale, flip});
}
