// Blank scenes, the scenes of a folder, and styles of other scenes.
$('new').onclick = () => {
  const areas = [...state.objects].sort((a, b) => b.pixels - a.pixels), ground = areas.find(({label}) => !state.labels[label].thing) || areas[0];
  const options = [...state.labels].sort((a, b) => b.learned - a.learned).map(({label, name, learned}) =>
    Object.assign(document.createElement('option'), {value: label,
      textContent: learned ? name : `${name} (not learned)`, selected: label === ground.label}));
  $('blanklabel').replaceChildren(...options);
  [$('blankwidth').value, $('blankheight').value] = state.default_size;
  $('blankerror').textContent = '';
  $('blank').showModal();
};
$('blankform').onsubmit = async event => {
  event.preventDefault();
  const size = [+$('blankwidth').value, +$('blankheight').value];
  const tell = text => { $('blankerror').textContent = text; };
  if (!await opening('/blank', {label: +$('blanklabel').value, size}, tell)) return;
  $('blank').close();
  $('view').focus();
};

// Opens another scene. Its edits come back when it is opened again.
async function opening(path, body, tell = undefined) {
  const {unsaved, name} = state, done = await change(path, body, tell);
  if (!done) return false;
  fit();
  $('view').focus();
  if (unsaved) note(`The unsaved edits of ${name} are kept: undo returns to them.`, false, 12);
  return true;
}

// Small maps are loaded one after the other when they come into view.
let tiles = null;                       // the session that they are of
const wanted = new Set();               // tiles in view without a map
const inView = new IntersectionObserver(entries => {
  for (const {target, isIntersecting} of entries) if (isIntersecting) wanted.add(target); else wanted.delete(target);
  loadMaps();
}, {root: $('tiles'), rootMargin: '200px'});
let loading = false;
async function loadMaps() {
  if (loading) return;
  loading = true;
  for (let tile; $('browser').open && (tile = [...wanted][0]); ) {
    wanted.delete(tile);
    inView.unobserve(tile);
    try {
      tile.querySelector('img').src = URL.createObjectURL(await (await post('/scene_map', {scene: tile.dataset.key})).blob());
    } catch (error) { tile.title = error.message; }
  }
  loading = false;
}

function tile({name, styles}) {
  const box = document.createElement('div'), button = document.createElement('button');
  box.className = 'tile';
  box.dataset.key = name;
  button.append(Object.assign(new Image(), {alt: ''}), Object.assign(document.createElement('span'), {textContent: name}));
  button.onclick = async () => { $('browser').close(); await opening('/open_scene', {scene: name}); };
  box.append(button);
  if (styles && state.encoder) {
    const take = Object.assign(document.createElement('button'), {textContent: 'Take its styles',
      title: `Offer the styles of the objects of ${name} for this scene`});
    take.onclick = () => { $('browser').close(); borrow({scene: name}, name); };
    box.append(take);
  }
  inView.observe(box);
  return box;
}

$('scenes').onclick = () => trying(async () => {
  const {scenes, open} = await (await post('/scenes')).json();
  if (tiles !== state.session) $('tiles').replaceChildren(...scenes.map(tile));
  tiles = state.session;
  $('browser').showModal();
  for (const box of $('tiles').children) {
    box.classList.toggle('on', box.dataset.key === open);
    if (box.dataset.key === open) box.scrollIntoView({block: 'center'});
  }
  loadMaps();
});
$('findscene').oninput = () => {
  const query = $('findscene').value.toLowerCase();
  for (const box of $('tiles').children) box.hidden = !box.dataset.key.toLowerCase().includes(query);
};
for (const button of document.querySelectorAll('[data-shut]')) button.onclick = () => button.closest('dialog').close();

// Offers the styles of another scene, of files by role or of the list.
function borrow(body, name) {
  return trying(async () => {
    showDoing('taking styles');
    const answer = await (await post('/borrow', body)).json();
    state.borrowed = answer.borrowed;
    answer.notes.forEach(text => note(text, false, 20));
    await loadBorrowed();
    const names = [...new Set(borrowed.at(-1).styles.map(({label}) => state.labels[label].name))];
    note(`The styles of ${name} can be chosen now: ${names.join(', ')}. Select an object to see those of its label.`, false, 12);
  }).finally(() => showDoing());
}

function borrowFiles({label, inst, styles, photo}) {
  return trying(async () => {
    if (!label || !photo && !styles) throw new Error('Choose a photograph together with its label map (and its instance map).');
    await borrow(await encoded({label, inst, styles, photo}), (photo || styles).name);
  });
}
$('borrow').onclick = () => $('sourcefiles').click();
$('sourcefiles').onchange = () => {
  const files = [...$('sourcefiles').files];
  $('sourcefiles').value = '';
  trying(async () => borrowFiles(await sortFiles(files, true)));
};
