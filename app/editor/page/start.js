// The start, and the offer of unsaved edits.
setTool('select'); setView('picture'); $('blend').hidden = true; setWidth(12);
trying(async () => {
  const first = await (await post('/state')).json();
  paintLabel = first.labels.find(({thing}) => thing)?.label ?? first.objects[0].label;
  await take(first);
  setWidth(Math.max(3, Math.round(state.size[0] / 40)));
  fit();
});

// Offers the unsaved edits of earlier sessions, and of scenes that the history has lost, each once: their scene, number, time and picture.
const offers = new Map();               // {file: its note}
function offer() {
  for (const [file, box] of offers) if (!state.unsaved_found.some(about => about.file === file)) box.remove();
  for (const {file, name, edits, time} of state.unsaved_found) {
    if (offers.has(file)) continue;
    const number = edits === null ? 'Unsaved edits' : edits === 1 ? 'One unsaved edit' : `${edits} unsaved edits`;
    const box = ask(`${number} of ${name}, ${new Date(1000 * time).toLocaleString()}`, {
      'Restore': () => recover(file, true), 'Forget': () => recover(file, false), 'Later': () => {}});
    offers.set(file, box);
    trying(async () => {
      const image = Object.assign(new Image(), {alt: `${name} with these edits`});
      image.src = URL.createObjectURL(await (await post('/kept_picture', {file})).blob());
      box.querySelector('button').before(image);
    });
  }
}

async function recover(file, restore) {
  if (!await change('/recover', {file, restore})) offers.delete(file);
  else if (!restore) note(`Forgotten. They are still in the folder, in a file ${file.replace(/\.npz$/, '')}-....forgotten.`);
}
