// The scene that the server edits: its state on this page, and requests.
const $ = id => document.getElementById(id);
const token = takeToken();

// Takes the token out of the address, and so out of the tab's history; a reload finds it in the
// storage of the tab. Not a cookie: all servers of this machine, on any port, would get it.
function takeToken() {
  const given = new URLSearchParams(location.search).get('token');
  try {
    if (given) sessionStorage.setItem('token', given);
    const kept = sessionStorage.getItem('token') || '';
    if (given) history.replaceState(null, '', location.pathname);
    return kept;
  } catch { return given || ''; }       // this browser stores nothing: a reload needs the address
}

let state = null;                       // the last answer of /state
let labels = null, insts = null;        // label and instance of every pixel
let objects = new Map();                // {id: object} of state.objects
let picture = null, original = null;    // canvases; original: of the scene as it was opened
let originalMap = null;                 // the labels of that scene
let originalOf = -1;                    // the state.opened that `original` belongs to
let labelMap = null;                    // a canvas
let mapsVersion = -1, shownVersion = -1;
let selected = null, clicked = null, hovered = null;
let outlines = {};                      // {id: Path2D} of the selected and the hovered object
let tool = 'select', view = 'picture', paintLabel = 0;
let zoom = 1, left = 0, top_ = 0;       // position of the picture in its pane, in CSS pixels
let fitted = true, lastPane = null;     // whether `zoom` fits the picture into that pane
let drag = null, scaling = null, before = false, spaceHeld = false;
let pickFor = null;                     // what the next click chooses another object for: 'like', 'behind'
let strokes = [];                       // those whose picture has not come; version: of that picture
let thumbnails = null;                  // an AbortController

async function post(path, body = {}, signal = undefined) {
  let answer;
  try {
    answer = await fetch(path, {method: 'POST', signal, body: JSON.stringify(body),
      headers: {'Content-Type': 'application/json', 'X-Token': token}});
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    setLost('The editor does not answer. Edits wait for it.');
    throw Object.assign(new Error('The editor does not answer.'), {lost: true});
  }
  if (answer.ok) { setLost(''); return answer; }
  const {error} = await answer.json();
  if (answer.status === 403) setLost(`${error}.`);
  throw Object.assign(new Error(error), {status: answer.status, lost: answer.status === 403});
}

function note(text, bad = false, seconds = 7) {
  for (const box of $('notes').children) if (box.textContent === text) box.remove();
  const box = document.createElement('div');
  box.className = bad ? 'note bad' : 'note';
  box.textContent = text;
  $('notes').append(box);
  if (seconds) setTimeout(() => box.remove(), 1000 * seconds);
  return box;
}

async function trying(action, tell = text => note(text, true)) {
  try { return await action(); } catch (error) {
    // Of a lost connection a banner tells, and the server says in its order what cannot be undone.
    const silent = error.name === 'AbortError' || error.status === 409 || error.lost
      || /^(un|re)do: nothing to/.test(error.message);
    if (!silent) tell(error.message);
  }
}

let queue = Promise.resolve();          // changes of the scene are made one after the other
let pending = 0, computing = false;     // how many of them wait; whether a picture is computed
const page = Math.random().toString(36).slice(2);       // what other tabs change is told apart
let resumedAt = null;                   // the version at which a server that was restarted goes on

function showDoing(what = pending ? 'applying' : computing ? 'computing the picture' : '') {
  $('doing').textContent = what;
}

function change(path, body, tell = undefined) {
  const {version, session} = state;     // which the user sees now
  stopThumbnails();
  pending++; showDoing(); showHistory();
  return queue = queue.then(() => trying(async () => {
    for (let again = false; ; ) {
      try {
        if (again) {
          await answering();
          if (await resume()) return state;
          again = false;
        }
        const seen = session === state.session ? version : resumedAt;
        await take(await (await post(path, {...body, version: seen, page})).json());
        return state;
      } catch (error) {
        if (error.status === 409) await take(await (await post('/state')).json());
        if (error.status === 409) throw new Error(`Not done: ${error.message}.`);
        if (!error.lost) throw error;
        again = true;
      }
    }
  }, tell)).finally(() => { pending--; showDoing(); showHistory(); });
}
const edit = (...edits) => change('/edit', {edits});

// While nobody answers, a banner stands, and changes wait.
let wake = [];
function setLost(text) {
  const was = !$('lost').hidden;
  $('lost').hidden = !text;
  $('lost').querySelector('span').textContent = text;
  if (!was || text) return;
  wake.forEach(go => go());
  wake = [];
  if (!pending) catchUp();
}
const answering = () => $('lost').hidden ? null : new Promise(go => wake.push(go));

// Goes on after the editor did not answer. Returns whether it has made this page's last change. A
// server that was started again goes on with the edits that this page shows, which it has kept.
// doing: whether a change waits, which cannot be made on what another tab has changed.
async function resume(doing = true) {
  let next = await (await post('/state')).json();
  if (next.session === state.session) {
    if (next.version === state.version) return false;
    const own = next.page === page;
    await take(next);
    if (doing && !own) throw new Error('Not done: changed in another tab.');
    return true;
  }
  const kept = [...next.unsaved_found, ...next.saved_found].find(({version}) => version === state.version);
  if (kept) next = await (await post('/recover', {restore: true, file: kept.file, page})).json();
  const same = kept || !state.undo && !next.undo && next.name === state.name && `${next.size}` === `${state.size}`;
  mapsVersion = -1;                     // of another server
  await take(next);
  if (!same) throw new Error('The editor was started again with another scene or other edits.');
  resumedAt = state.version;
  return false;
}

function catchUp() {
  queue = queue.then(() => trying(async () => {
    await resume(false);
    if (shownVersion !== state.version) refresh();
  }));
}

// Asks whether the editor answers, whether another tab has changed the scene, and what is kept.
let beating = false;
async function beat() {
  if (beating || !state) return;
  beating = true;
  try {
    const {version, keep_error} = await (await post('/progress', {}, AbortSignal.timeout(5000))).json();
    $('unkept').hidden = !keep_error;
    $('unkept').textContent = `Unsaved edits are not kept: ${keep_error}. Save often.`;
    if (version !== state.version && !pending) catchUp();
  } catch { /* the banner tells */ }
  beating = false;
}
setInterval(beat, 2000);

async function take(next) {
  let maps = null;
  const previous = state;
  if (next.maps_version !== mapsVersion) maps = await (await post('/maps')).arrayBuffer();
  state = next;
  objects = new Map(state.objects.map(object => [object.id, object]));
  if (maps) {
    const [w, h] = state.size;
    if (2 * w * h + 4 * w * h !== maps.byteLength) return take(await (await post('/state')).json());
    [labels, insts] = readMaps(maps);
    mapsVersion = state.maps_version;
    labelMap = mapCanvas(labels, insts);
    outlines = {};
    hovered = null;
  }
  keepSelection();
  show();
  if (previous && `${previous.size}` !== `${state.size}`) fit();
  tellWarnings(previous);
  offer();
  refresh();
}

// Notes what the terminal warns of, once.
function tellWarnings(previous) {
  if (previous?.opened !== state.opened) for (const text of state.warnings) note(text, false, 20);
  const fresh = state.no_styles.filter(name => !previous?.no_styles.includes(name));
  if (fresh.length) note(`The run has learned no styles for ${fresh.join(', ')}. Objects of this kind get the mean of all styles.`, false, 12);
}

// Returns the label and the instance of every pixel.
function readMaps(maps) {
  const pixels = maps.byteLength / 6;
  return [new Uint16Array(maps, 0, pixels), new Int32Array(maps.slice(2 * pixels))];
}

// Loads the picture of the newest state; first a preview if the picture takes long.
let refreshing = 0, seconds = 0;         // seconds: that the last picture took
async function refresh() {
  const mine = ++refreshing, version = state.version;
  const current = () => mine === refreshing;
  stopThumbnails();
  computing = true; showDoing();
  const poll = setInterval(async () => {
    if (!current()) return clearInterval(poll);
    try {
      const {progress} = await (await post('/progress')).json();
      if (current() && progress !== null) $('bar').style.width = `${100 * progress}%`;
    } catch { clearInterval(poll); }
  }, 200);
  try {
    if (seconds > 0.25 || !picture) {
      const half = await post('/picture', {version, preview: true});
      if (!current()) return;
      await put(await half.blob(), true, version);
    }
    const started = performance.now(), whole = await post('/picture', {version});
    seconds = (performance.now() - started) / 1000;
    if (!current()) return;
    await put(await whole.blob(), false, version);
    shownVersion = version;
    if (originalOf !== state.opened) {
      const first = await post('/picture', {version, opened: true});
      const maps = await (await post('/maps', {opened: true})).arrayBuffer();
      if (!current()) return;
      original = await canvasWith(await first.blob());
      originalMap = mapCanvas(...readMaps(maps));
      originalOf = state.opened;
    }
    if (current()) loadThumbnails();
  } catch (error) {
    if (!current() || error.lost) return;
    if (error.status !== 409) return note(error.message, true);
    queue = queue.then(() => trying(async () => {       // another tab has changed the scene
      const next = await (await post('/state')).json();
      if (next.version !== state.version) await take(next);
    }));
  } finally {
    clearInterval(poll);
    if (current()) { computing = false; showDoing(); $('bar').style.width = '0'; }
  }
}

async function put(blob, preview, version) {
  picture = await canvasWith(blob);
  strokes = strokes.filter(stroke => !(stroke.version <= version));
  $('badge').hidden = !preview;
  draw();
}

async function canvasWith(blob) {
  const image = await createImageBitmap(blob), canvas = canvasOf(...state.size);
  canvas.getContext('2d').drawImage(image, 0, 0, ...state.size);
  return canvas;
}

function canvasOf(w, h) { return Object.assign(document.createElement('canvas'), {width: w, height: h}); }
