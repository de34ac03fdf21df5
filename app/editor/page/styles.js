// The styles of what is selected: those of its label, those of other scenes, and between two.
// Thumbnails are loaded one after the other after the picture, until the next click.
function stopThumbnails() { thumbnails?.abort(); thumbnails = null; }

let borrowed = [], borrowedOf = null;   // styles of other scenes, of the session of that number
async function loadBorrowed() {
  if (borrowedOf === state.session && borrowed.length === state.borrowed) return;
  borrowedOf = state.session;
  borrowed = state.borrowed ? (await (await post('/offers')).json()).borrowed : [];
  if (objects.has(selected)) showStyles();
}

function styleButton(wish, key, title, text = '') {
  const button = document.createElement('button'), on = selection().every(id => objects.get(id).style === wish);
  button.append(Object.assign(document.createElement('span'), {textContent: text}));
  button.title = title;
  button.dataset.key = key;
  button.wish = wish;
  button.setAttribute('aria-label', title);
  button.setAttribute('aria-pressed', on);
  button.onclick = () => mixing && !mixing.to ? mixWith(wish) : style(wish);
  return button;
}

function showStyles() {
  const {label} = objects.get(selected), {styles, name} = state.labels[label];
  if (!state.encoder) return;
  trying(loadBorrowed);
  const same = selection().every(id => objects.get(id).label === label);      // else they share no styles
  const buttons = Array.from({length: same ? styles : 0}, (_, k) => styleButton(k, k, `Style ${k}`, k));
  borrowed.forEach((source, i) => {
    const own = source.styles.filter(each => same && each.label === label);
    if (!own.length) return;
    buttons.push(Object.assign(document.createElement('h3'), {textContent: `${name} of ${source.name}`}));
    buttons.push(...own.map(({features}, k) =>
      styleButton(features, `${i}:${k}`, `Style ${k + 1} of ${source.name}`)));
  });
  fill($('styles'), buttons);
  if (mixing?.object !== selected) stopMixing();
  showMixing();
  loadThumbnails();
}

async function loadThumbnails() {
  stopThumbnails();
  if (selected === null || !state.encoder || shownVersion !== state.version) return;
  const mine = thumbnails = new AbortController(), id = selected;
  for (const button of $('styles').querySelectorAll('button')) {
    if (button.querySelector('img')) continue;
    try {
      const answer = await post('/thumbnail', {object: id, style: button.wish}, mine.signal);
      const image = new Image(), blob = await answer.blob();
      if (mine.signal.aborted) return;
      image.alt = ''; image.src = URL.createObjectURL(blob);
      image.onload = () => URL.revokeObjectURL(image.src);
      button.prepend(image);
    } catch { return; }
  }
}

// Returns the edit that gives a style to what is selected, or to all objects of its label.
function styleEdit(wish) {
  const which = !more.size && $('all').checked ? {label: objects.get(selected).label} : chosen();
  return {do: 'style', ...which, style: wish, ...wish === 'random' && {seed: Math.floor(Math.random() * 2 ** 31)}};
}

function style(wish) {
  if (!objects.has(selected) || !state.encoder) return;
  stopMixing();
  return edit(styleEdit(wish));
}

// Between two styles. from, to: features and the style to choose at that end of the slider; given:
// where the slider was at the last edit.
let mixing = null;                      // {object, from, to, given}; without `to` while it is chosen
// A preview {image, object, at, version}: of the state `at`, and if it has become an edit, of its
// version until its picture comes.
let mixed = null;
function mix() {
  if (mixing) return stopMixing();
  mixing = {object: selected};
  showMixing();
}
$('mix').onclick = mix;

function stopMixing() { mixing = null; if (!mixed?.version) mixed = null; showMixing(); }

function showMixing() {
  $('mix').setAttribute('aria-pressed', !!mixing);
  $('mixhint').hidden = !mixing || !!mixing.to;
  $('mixing').hidden = !mixing?.to;
}

function mixWith(wish) {
  return trying(async () => {
    const {now, styles} = await (await post('/features', {object: mixing.object})).json();
    const {style} = objects.get(mixing.object);
    mixing.from = {features: now, wish: style ?? now};
    mixing.to = {features: typeof wish === 'number' ? styles[wish] : wish, wish};
    $('share').value = mixing.given = '0';
    $('shareout').value = '0 %';
    showMixing();
    $('share').focus();
  });
}

// Returns the style at the slider; at its ends one of the two.
function mixedStyle() {
  const share = +$('share').value, {from, to} = mixing;
  if (share === 0 || share === 1) return [from, to][share].wish;
  return from.features.map((x, i) => x + share * (to.features[i] - x));
}

let previewing = null;                  // the request for a preview, and whether it must be repeated
async function previewMix() {
  if (previewing) { previewing.again = true; return; }
  const {object} = mixing, at = state.version, mine = previewing = {again: false};
  try {
    const answer = await post('/thumbnail', {object, style: mixedStyle()});
    const image = await createImageBitmap(await answer.blob());
    if (at === state.version) mixed = {object, at, image: ofObject(image, object)};
    draw();
  } catch { /* a newer edit */ }
  previewing = null;
  if (mine.again && mixing?.to) previewMix();
}

$('share').oninput = () => {
  $('shareout').value = `${Math.round(100 * $('share').value)} %`;
  if (mixing?.to) previewMix();
};
// By keys, what is reached after a while is one edit.
let waiting = null;
$('share').onpointerdown = () => { waiting = null; };
$('share').onkeydown = () => { clearTimeout(waiting); waiting = setTimeout(() => { waiting = null; giveMix(); }, 600); };
$('share').onblur = () => { if (waiting) { clearTimeout(waiting); waiting = null; giveMix(); } };
$('share').onchange = () => { if (!waiting) giveMix(); };
async function giveMix() {
  if (!mixing?.to || mixing.object !== selected || mixing.given === $('share').value) return;
  mixing.given = $('share').value;
  const done = await edit(styleEdit(mixedStyle()));
  if (mixed) mixed = done ? {...mixed, version: done.version} : null;
  draw();
}

// Returns a picture of the box of an object without what is around it, as a canvas.
function ofObject(image, id) {
  const [x0, y0, x1, y1] = objects.get(id).box, w = x1 - x0, h = y1 - y0;
  const canvas = canvasOf(w, h), g = canvas.getContext('2d');
  g.drawImage(image, 0, 0, w, h);
  const pixels = g.getImageData(0, 0, w, h);
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++)
    if (insts[(y0 + y) * state.size[0] + x0 + x] !== id) pixels.data[4 * (y * w + x) + 3] = 0;
  g.putImageData(pixels, 0, 0);
  return canvas;
}

// Paints the preview over the object.
function paintMix(g) {
  const isNew = mixed?.version ? mixed.version === state.version && shownVersion < mixed.version : mixed?.at === state.version;
  if (!isNew) return;
  g.drawImage(mixed.image, ...objects.get(mixed.object).box.slice(0, 2));
}

document.addEventListener('keydown', event => {
  if (event.key !== 'Escape' || !mixing) return;
  event.stopImmediatePropagation();
  stopMixing();
}, true);
