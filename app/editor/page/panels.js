// The panels: the selected object, its styles, what is painted, and the labels.
// Replaces the elements of a list; the focus stays on the one with the same data-key.
function fill(list, elements) {
  const key = list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  list.replaceChildren(...elements);
  if (key !== null) elements.find(element => element.dataset.key === key)?.focus();
}

function show() {
  $('scenes').hidden = state.scenes < 2;
  $('title').textContent = state.title;
  document.title = `${state.unsaved ? '* ' : ''}${state.title}`;
  $('unsaved').hidden = !state.unsaved;
  showHistory(); showObject(); showPaint(); showLegend(); draw();
}

// What waits may give something to undo or to redo.
function showHistory() {
  showStates();
  $('undo').disabled = $('reset').disabled = !state.undo && !pending;
  $('redo').disabled = !state.redo && !pending;
}

const cssColour = ([r, g, b]) => `rgb(${r},${g},${b})`;

function showObject() {
  const object = objects.get(selected);
  speak();
  $('object').hidden = !object; $('nothing').hidden = !!object;
  if (!object) { pickFor = null; return stopThumbnails(); }
  const {name} = state.labels[object.label], all = selection().map(id => objects.get(id));
  const names = [...new Set(all.map(({label}) => state.labels[label].name))];
  $('name').querySelector('b').textContent = more.size ? `${all.length} objects` : name;
  $('name').querySelector('small').textContent = more.size ? names.join(', ') : `object ${object.id}, ${object.pixels} pixels`;
  paintSwatch($('name').querySelector('.swatch'), object.label);
  showRelabel(object);
  $('styling').hidden = !state.encoder; $('nostyles').hidden = state.encoder;
  $('fromphoto').disabled = !state.photo;
  $('random').disabled = $('main').disabled = !all.every(({label}) => state.labels[label].styles);
  $('split').disabled = more.size > 0 || !partToSplit();
  $('all').parentElement.hidden = more.size > 0;
  $('scale').value = 0; $('scaled').value = '100 %'; scaling = null;
  for (const purpose of ['like', 'behind']) $(purpose).setAttribute('aria-pressed', pickFor === purpose);
  showStyles();
}

// Lists the labels that an object can have; those that were never learned come last.
function showRelabel(object) {
  if (choosing) return;
  const same = selection().every(id => objects.get(id).label === object.label);
  const option = ({label, name}) => Object.assign(document.createElement('option'),
    {value: label, textContent: name, selected: same && label === object.label});
  const group = document.createElement('optgroup');
  group.label = 'not in the training data';
  group.append(...state.labels.filter(({learned}) => !learned).map(option));
  const none = Object.assign(document.createElement('option'), {value: '', textContent: 'several labels', selected: true});
  $('relabel').replaceChildren(...same ? [] : [none], ...state.labels.filter(({learned}) => learned).map(option),
    ...group.children.length ? [group] : []);
}

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
  $('paintname').textContent = $('to').value === 'erase' ? 'erase' : state.labels[label].name;
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