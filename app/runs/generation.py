"""Pictures of many label maps: files are paired by name and read ahead, pictures are written in the
background, with a gallery of all."""
from collections import namedtuple
from contextlib import contextmanager

from app.common.console import Progress, log_info, status_line, warn, warn_on_error
from app.common.errors import UserError
from app.common.files import BackgroundQueue, read_ahead, resolve_path
from app.datasets import layouts
from app.datasets.scenes import read_photo, read_scene, warn_about_size
from app.runs import distributed, memory, pictures, report, run_styles
import generate
import styles

# labels, insts, photos: {scene: path} of label maps, instance maps ({}: connected components) and
# photographs to take the styles from ({}: none).
SceneFiles = namedtuple('SceneFiles', 'labels insts photos')

# How styles are chosen. sample: n drawn ones for each scene. clusters, chosen: see
# generate.choose_vectors. saved: a file of scene styles, in place of those.
StyleChoice = namedtuple('StyleChoice', 'seed sample n clusters chosen saved')


def pair_files(labels, insts, photos):
    """Pair the files and folders of label maps, instance maps and photographs by name."""
    labels = layouts.files_by_name(labels, 'label')
    insts, photos = (layouts.match_by_name(paths, role, labels) if paths else {}
                     for paths, role in ((insts, 'inst'), (photos, 'image')))
    return SceneFiles(labels, insts, photos)


def check_output_folder(out, labels):
    """Raise UserError where pictures in `out` would be taken for label maps the next time."""
    for path in labels:
        if path.is_dir() and resolve_path(out).is_relative_to(resolve_path(path)):
            raise UserError(f'--out {out} lies in {path}, so its pictures would be taken for label '
                            'maps next time; choose another folder')


def make_scene_pictures(run, scene, name, choice, photo=None):
    """Yield the ending of its file's name and each picture (1, C, H, W) of a scene, on the CPU."""
    memory.keep_memory(scene.label[0, 0].numel() <= memory.KEPT_PIXELS)
    for i in range(choice.n):
        seed = run_styles.picture_seed(choice.seed, name, i)
        if choice.saved:
            vectors, seed = run_styles.read_scene_styles(choice.saved, run, scene)
        else:
            vectors = generate.choose_vectors(run, scene, choice.clusters, photo,
                                              seed if choice.sample else None, choice.chosen)
        ending = (f'seed{choice.seed}_{i + 1}' if choice.sample else
                  'generated' if photo is None else 'encoded')
        yield ending, generate.synthesise(run, scene, vectors, seed).cpu()


def make_pictures(run, folder, files, out, choice, size=None):
    """Write the pictures of all SceneFiles into the folder `out`, and a gallery where there are
    several scenes. A scene that cannot be used is reported, and the others go on.

    folder: of the run. choice: StyleChoice. size: resize maps to (width, height).
    Returns the number of scenes that failed.
    """
    names = distributed.shard(list(files.labels))
    failed, unstyled, rows, size_noted = {}, set(), {}, False

    @contextmanager
    def reporting_errors(name):
        try:
            yield
        except ValueError as error:
            failed[name] = f'p2phd generate: {error}'
            warn(failed[name])

    def read(name):
        return read_scene(run.config, files.labels[name], files.insts.get(name), size)

    def write(name, path, picture):
        with reporting_errors(name):
            path = pictures.write_picture(path, picture)
            log_info(path)
            rows[name][1].append(path.name)

    # The next map is read, and the last pictures are written, while the networks compute.
    queue, done = BackgroundQueue(), 0
    progress = Progress('pictures', len(names) * choice.n)
    for name, scene in read_ahead(read, names):
        with reporting_errors(name):
            scene = scene.result()
            size_noted = size_noted or warn_about_size(folder, run.config, files.labels[name],
                                                       scene)
            photo = files.photos.get(name) and read_photo(run.config, files.photos[name], scene)
            rows[name] = (report.thumbnail(pictures.label_to_rgb(run.config, scene.label[0]))
                          if len(files.labels) > 1 else ''), []
            if choice.clusters:
                unstyled |= styles.labels_without_styles(scene.labels, choice.clusters)
            for ending, picture in make_scene_pictures(run, scene, name, choice, photo):
                queue(write, name, out / f'{name}_{ending}.png', picture)
                progress(done := done + 1)
    queue.end()
    status_line('')
    return finish(run.config, files, out, failed, unstyled, rows)


def finish(config, files, out, failed, unstyled, rows):
    """Write the gallery, and warn of labels without styles and of errors in other processes.
    Returns the number of scenes that failed."""
    parts = distributed.all_gather((failed, unstyled, rows))
    for others, _, _ in parts:                              # whose stderr nobody sees
        for name in others.keys() - failed.keys():
            warn(others[name])
        failed |= others
    rows = [(name, *row) for _, _, part in parts for name, row in part.items() if row[1]]
    several = len(files.labels) > 1
    if several and rows and distributed.IS_MAIN:
        warn_on_error(lambda: report.write_gallery(out, rows), 'the pictures are there')
    if unstyled := set().union(*(part for _, part, _ in parts)):
        names = config.label_names or range(config.n_labels)
        warn(f'warning: no styles for {", ".join(str(names[i]) for i in sorted(unstyled))}, which '
             'the training data lacks; they get the mean of all features')
    if failed and several:
        warn(f'p2phd generate: {len(failed)} of {len(files.labels)} label maps could not be used')
    return len(failed)
