"""Pictures of many label maps: files are paired by name and read ahead, pictures are written in the
background, with a gallery of all."""
from collections import deque, namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from app.common.console import Progress, log_info, status_line, warn, warn_on_error
from app.common.errors import UserError, WriteError
from app.common.files import make_folder, read_ahead, require_own, resolve_path
from app.datasets import layouts
from app.datasets.scenes import (OTHER_IDS, name_labels, read_photo, read_scene,
                                 warn_about_size)
from app.runs import distributed, folders, memory, pictures, report, run_styles
import generate

# {scene: path} of label maps, instance maps ({}: connected components), photographs ({}: none).
SceneFiles = namedtuple('SceneFiles', 'labels insts photos')

# How styles are chosen. sample: n drawn ones for each scene. clusters, chosen: see
# generate.scene_styles. saved: a file of scene styles, in place of those.
StyleChoice = namedtuple('StyleChoice', 'seed sample n clusters chosen saved')


def pair_files(labels, insts, photos, out):
    """Pair files and folders of label maps, instance maps and photographs by name: SceneFiles.
    Raises UserError where pictures in the folder `out` would be taken for label maps next time."""
    paths = layouts.files_by_name(labels, 'label')
    for path in map(Path, labels):
        if path.is_dir() and resolve_path(out).is_relative_to(resolve_path(path)):
            raise UserError(f'--out {out} lies in {path}, so its pictures would be taken for label '
                            'maps next time; choose another folder')
    return SceneFiles(paths, *(layouts.match_by_name(others, role, paths) if others else {}
                               for others, role in ((insts, 'inst'), (photos, 'image'))))


def make_pictures(run, folder, files, out, choice, size=None):
    """Write the pictures of all SceneFiles into the folder `out`, and a gallery of several scenes.
    Scenes that cannot be used are reported and skipped. folder: of the run. choice: StyleChoice.
    size: resize maps to (width, height). Returns the number of scenes that failed."""
    c, names, several = run.config, distributed.shard(list(files.labels)), len(files.labels) > 1
    if several:
        require_own(out / folders.PAGE[0], folders.PAGE[1], '--out')
    failed, messages, unstyled, rows, size_noted, done = set(), [], set(), {}, False, 0

    def report_problem(text):
        messages.append(text)
        warn(text)

    @contextmanager
    def reporting_errors(name):
        try:
            yield
        except WriteError:                          # the next one could not be written, either
            raise
        except ValueError as error:
            failed.add(name)
            report_problem(f'p2phd generate: {error}')

    def finish_writing(but):
        while len(writing) > but:
            name, future = writing.popleft()
            with reporting_errors(name):
                path = future.result()
                log_info(path)
                rows[name][1].append(path.relative_to(out).as_posix())

    # The next map is read, and the last pictures are written, while the networks compute. A GPU
    # makes pictures faster than one thread compresses them.
    threads = 8 if run.device.type == 'cuda' else 1
    pool, writing = ThreadPoolExecutor(threads), deque()
    progress = Progress('pictures', len(names) * choice.n)
    scenes = read_ahead(lambda name: read_scene(
        c, files.labels[name], files.insts.get(name), size), names)
    for name, scene in scenes:
        with reporting_errors(name):
            scene, path = scene.result(), files.labels[name]
            memory.check_picture(run, scene.label.shape[:1:-1], path)
            size_noted = size_noted or warn_about_size(folder, c, path, scene)
            photo = files.photos.get(name) and read_photo(c, files.photos[name], scene)
            rows[name] = several and report.thumbnail(pictures.label_to_rgb(c, scene.label[0])), []
            if missing := labels_without_clusters(scene, choice.clusters) - unstyled:
                unstyled |= missing
                report_problem(warning_of_unstyled(c, path, missing))
            for ending, picture in make_scene_pictures(run, scene, name, choice, photo):
                path = out / f'{name}_{ending}.png'
                if '/' in name:
                    make_folder(path.parent)
                writing.append((name, pool.submit(pictures.write_picture, path, picture)))
                finish_writing(but=2 * threads)
                progress(done := done + 1)
    finish_writing(but=0)
    status_line('')
    return finish(files, out, len(failed), messages, rows)


def finish(files, out, failed, messages, rows):
    """Print the messages of all processes, write their gallery, return how many scenes failed."""
    several = len(files.labels) > 1
    parts = distributed.all_gather((failed, messages, rows))
    for text in [text for _, texts, _ in parts[1:] for text in texts]:
        warn(text)                              # of the other processes, whose stderr nobody sees
    rows = [(name, *row) for _, _, part in parts for name, row in part.items() if row[1]]
    if several and rows and distributed.IS_MAIN:
        warn_on_error(lambda: log_info(report.write_gallery(out, rows)), 'the pictures are there')
    failed = sum(n for n, _, _ in parts)
    if failed and several:
        warn(f'p2phd generate: {failed} of {len(files.labels)} label maps could not be used')
    return failed


def labels_without_clusters(scene, clusters):
    """Return the set of those labels of a Scene that have no clusters; none of them without any."""
    has_styles = clusters and clusters['counts'].any(1)
    return {label for label in scene.labels.unique().tolist()
            if not has_styles[label]} if clusters else set()


def warning_of_unstyled(config, path, labels):
    return (f'warning: {path}: no styles for {name_labels(config, labels)}, which the '
            f'training data lacks; they get the mean of all features. {OTHER_IDS}')


def make_scene_pictures(run, scene, name, choice, photo=None):
    """Yield the ending of its file's name and each picture (1, C, H, W) of a scene."""
    memory.keep_memory(scene.label[0, 0].numel() <= memory.KEPT_PIXELS)
    for i in range(choice.n):
        seed = run_styles.picture_seed(choice.seed, name, i)
        if choice.saved:
            vectors, seed = run_styles.read_scene_styles(choice.saved, run, scene)
        else:
            vectors = generate.scene_styles(run, scene, choice.clusters, photo,
                                            seed if choice.sample else None, choice.chosen)
        ending = (f'seed{choice.seed}_{i + 1}' if choice.sample else
                  'generated' if photo is None else 'encoded')
        yield ending, generate.synthesise(run, scene, vectors, seed)
