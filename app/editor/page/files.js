// Files: saving, photographs, scenes that are opened or dropped, and notes with a question.
// Asks for what the page shows; later edits wait, because they would supersede it.
function asShown(path, body, use, tell = undefined) {
  return queue = queue.then(() => trying(async () => {
    showDoing('saving');
    const answer = await post(path, {...body, version: state.version, page}).catch(async error => {
      if (error.status !== 409) throw error.lost ? new Error('Not saved: the editor does not answer.') : error;
      await take(await (await post('/state')).json());
      throw new Error(`Not saved: ${error.message}. Look at the scene and save it again.`);
    });
    await use(answer);
    return true;
  }, tell)).finally(() => showDoing());
}

function save(name = undefined, tell = undefined) {
  return asShown('/save', {name}, async answer => {
    const {files, unsaved, title, name} = await answer.json();
    note(`Saved:\n${files.join('\n')}`, false, 12);
    Object.assign(state, {unsaved, title, name});
    show();
  }, tell);
}

// The window for a name and for downloads.
const sayInWindow = text => { $('saveerror').textContent = text; };
function saveAs() {
  $('filename').value = state.name;
  sayInWindow('');
  document.querySelector('[data-file=inst]').hidden = !state.instances;
  document.querySelector('[data-file=edits]').disabled = !state.edits;
  $('saving').showModal();
  $('filename').select();
}
$('saveas').onclick = saveAs;
$('saveform').onsubmit = async event => {
  event.preventDefault();
  if (!await save($('filename').value.trim(), sayInWindow)) return;
  $('saving').close();
  $('view').focus();
};
for (const button of document.querySelectorAll('[data-file]')) button.onclick = () => {
  const file = button.dataset.file, name = $('filename').value.trim();
  const ending = {label: '_labelIds', inst: '_instanceIds', styles: '_styles', edits: '_edits'}[file] || '';
  sayInWindow('');
  asShown('/download', {file, name}, async answer => {
    const blob = await answer.blob(), type = blob.type.split('/')[1];
    const link = Object.assign(document.createElement('a'), {href: URL.createObjectURL(blob),
      download: `${name}${ending}.${type === 'octet-stream' ? 'npy' : type}`});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }, sayInWindow);
};

async function base64(file) {
  const url = await new Promise((good, bad) => Object.assign(new FileReader(), {
    onload() { good(this.result); }, onerror() { bad(new Error(`${file.name} cannot be read`)); }}).readAsDataURL(file));
  return url.slice(url.indexOf(',') + 1);
}

function takePhoto(file) {
  return trying(async () => {
    const answer = await (await post('/photo', {data: await base64(file), name: file.name})).json();
    state.photo = answer.photo;
    note('The photograph is loaded. Select an object and click "From photo".');
    showObject();
  });
}

// Returns what a file is: 'edits', 'styles', 'inst', 'label', 'map' (one of these two), or 'photo'.
async function kindOf(file) {
  if (/\.(zip|rar|7z|tgz|tar|gz)$/i.test(file.name)) throw new Error(`${file.name} is an archive: unpack it, then choose its files.`);
  if (/edits\.json$/i.test(file.name)) return 'edits';
  if (/\.json$/i.test(file.name)) return 'styles';
  if (/inst(ance)?(_?ids)?\.\w+$/i.test(file.name)) return 'inst';
  if (/label(_?(train)?ids)?s?\.\w+$/i.test(file.name)) return 'label';
  const head = new Uint8Array(await file.slice(0, 26).arrayBuffer());
  const png = head[0] === 0x89 && head[1] === 0x50;     // if it is grey or has a colour table: ids
  return /\.npy$/i.test(file.name) || png && [0, 3].includes(head[25]) ? 'map' : 'photo';
}

// Sorts files by role, {label, inst, styles, photo}. asScene: a single picture is a label map.
async function sortFiles(files, asScene) {
  const scene = {}, rest = [];
  const put = (role, file) => {
    if (scene[role]) throw new Error(`${scene[role].name} and ${file.name} both look like the ${role} file. Choose one scene.`);
    scene[role] = file;
  };
  for (const file of files) {
    const kind = await kindOf(file);
    if (kind === 'map' || kind === 'photo') rest.push([kind, file]); else put(kind, file);
  }
  const rank = ([kind, {name}]) => kind === 'map' ? 0 : /\.jpe?g$/i.test(name) ? 2 : 1;    // maps are no JPEG
  rest.sort((a, b) => rank(a) - rank(b));
  for (const [kind, file] of rest) {
    const saved = scene.label && file.name.replace(/\.\w+$/, '') === scene.label.name.replace(/_labelIds\.\w+$/, '');
    if (kind === 'map' || asScene && !scene.label) put(scene.label ? 'inst' : 'label', file);
    else if (!saved) put('photo', file);                // not the picture that was saved with them
  }
  return scene;
}

// Returns the content and the name of files {role: file or undefined} for a request.
async function encoded(files) {
  const body = {};
  for (const [role, file] of Object.entries(files).filter(([, file]) => file)) {
    body[role] = await base64(file);
    body[`${role}_name`] = file.name;
  }
  return body;
}

function openScene({label, inst, styles, photo}) {
  return trying(async () => {
    if (!label) throw new Error('The label map is missing, or its name does not say what it is. Choose all files of the scene at once.');
    if (await change('/open', await encoded({label, inst, styles}))) {
      fit();
      if (photo) await takePhoto(photo);
    }
  });
}

// Takes files that were dropped: a photograph at once, a scene after a question.
function dropped(files) {
  return trying(async () => {
    const scene = await sortFiles(files), {label, photo, edits, ...others} = scene;
    if (edits && files.length === 1) {
      let list;
      try { list = JSON.parse(await edits.text()); } catch { throw new Error(`${edits.name}: not a list of edits in JSON.`); }
      return change('/edit', {edits: list});
    }
    if (!label && photo && !Object.keys(others).length) return takePhoto(photo);
    if (!label) throw new Error(`The label map of ${Object.values(scene)[0].name} is missing. Drop all files of the scene at once.`);
    const single = files.length === 1 && await kindOf(label) === 'map';
    ask(`${label.name} is a label map. Open its scene in place of this one?`, {
      'Open': () => openScene(scene),
      ...(photo || scene.styles) && state.encoder && {'Take its styles': () => borrowFiles(scene)},
      ...single && {'It is a photograph': () => takePhoto(label)}, 'Cancel': () => {}});
  });
}

// Shows a note that stands until one of its buttons {text: action} is clicked.
function ask(text, answers) {
  const box = note(`${text}\n`, false, 0);
  for (const [answer, action] of Object.entries(answers)) {
    const button = Object.assign(document.createElement('button'), {textContent: answer});
    button.onclick = () => { box.remove(); action(); };
    box.append(button);
  }
  return box;
}
