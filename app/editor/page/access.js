// For everybody: a light and a dark theme, words for screen readers, names and hatches of labels.
const prefersLight = matchMedia('(prefers-color-scheme: light)');
let chosenTheme = stored('theme');      // null: as the system
function stored(name, value) {
  try {
    if (value === null) localStorage.removeItem(name);
    else if (value !== undefined) localStorage.setItem(name, value);
    return localStorage.getItem(name);
  } catch { return null; }              // this browser stores nothing
}
function showTheme() {
  const theme = chosenTheme || (prefersLight.matches ? 'light' : 'dark');
  document.documentElement.dataset.theme = theme;
  $('theme').setAttribute('aria-pressed', theme === 'light');
}
$('theme').onclick = () => {
  const next = document.documentElement.dataset.theme === 'light' ? 'dark' : 'light';
  chosenTheme = (next === 'light') === prefersLight.matches ? null : next;
  stored('theme', chosenTheme);
  showTheme();
};
prefersLight.onchange = showTheme;
showTheme();

// Says which object is selected, when that or its label or style changes.
function speak() {
  const object = objects.get(selected);
  const style = !object || !state.encoder ? '' : object.style === null ? ', a style of its own' : `, style ${object.style}`;
  const text = more.size ? `${selection().length} objects` :
    object ? `${state.labels[object.label].name}, object ${object.id}${style}` : 'no object is selected';
  if ($('spoken').textContent !== text) $('spoken').textContent = text;
}

// Where labels have the same colour, all but the first are hatched: [number of each label's hatch].
let hatchNumbers = [], hatchesOf = null;
function hatches() {
  if (hatchesOf === state.labels) return hatchNumbers;
  const seen = new Map();
  hatchesOf = state.labels;
  return hatchNumbers = state.labels.map(({colour}) => {
    const number = seen.get(`${colour}`) ?? 0;
    seen.set(`${colour}`, number + 1);
    return number;
  });
}
// Returns the colour of borders and hatches on a colour: a darker one, on dark colours a lighter one.
function shade([r, g, b]) {
  const dark = 0.21 * r + 0.72 * g + 0.07 * b < 50;
  return [r, g, b].map(value => Math.round(dark ? Math.min(255, value + 120) : value * 0.45));
}
function paintSwatch(element, label) {
  const {colour} = state.labels[label], number = hatches()[label];
  element.style.background = !number ? cssColour(colour) : `repeating-linear-gradient(${
    [0, 135, 45, 90][number % 4]}deg, ${cssColour(colour)} 0 3px, ${cssColour(shade(colour))} 3px 4.5px)`;
}

// Shows the name of the label under the pointer, where the label map is shown.
function showTip(event) {
  const shown = event.type === 'pointermove' && hovered !== null && !drag && paneAt(event).what !== 'picture';
  $('tip').hidden = !shown;
  if (!shown) return;
  const [x, y] = [event.offsetX, event.offsetY];
  $('tip').textContent = state.labels[labels[cursor[1] * state.size[0] + cursor[0]]].name;
  Object.assign($('tip').style, {left: `${x}px`, top: `${y}px`});
  $('tip').classList.toggle('before', x > $('stage').clientWidth / 2);
}
for (const name of ['pointermove', 'pointerdown', 'pointerleave']) $('view').addEventListener(name, showTip);

// "Before" is held by keys, too.
$('before').onkeydown = event => {
  if (event.key !== ' ' && event.key !== 'Enter') return;
  event.preventDefault();
  before = true; draw();
};
$('before').onkeyup = $('before').onblur = () => { before = false; draw(); };
