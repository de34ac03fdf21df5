"""Find label maps, instance maps and photographs in the folders that people make for their own
data: images/ and masks/, train/images/ and train/labels/, JPEGImages/ and SegmentationClass/ ..."""
from contextlib import suppress
import re

from app.common.errors import UserError
from app.common.files import read_text

# Names of folders by the role of their files, in lower case.
FOLDERS = {
    'label': ('segmentationclass segmentationclasspng masks mask labelmaps label_maps '
              'segmentations segmentation segs seg gtfine groundtruth ground_truth gt semantic '
              'labelids trimaps ann_dir labels label annotations annotation annotated').split(),
    'image': ('images image image_2 imgs img photos photo jpegimages leftimg8bit img_dir pictures '
              'rgb jpgs inputs originals').split(),
    'inst': ('instances instance inst annotations_instance segmentationobject '
             'segmentationobjectpng instanceids '
             'instance_maps').split()}
LISTS = '{}.txt', 'ImageSets/Segmentation/{}.txt', 'splits/{}.txt', 'annotations/{}.txt'


def subfolders(folder):
    """Return {name in lower case: path} of the folders in a folder."""
    with suppress(OSError):
        return {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    return {}


def role_folders(root, split, long_split):
    """Yield {role: folder} for each place where the folders of a split may be: train/images/,
    images/train/, train_images/, train/ beside train_masks/, and images/ if it is not divided."""
    top, splits = subfolders(root), {split.lower(), long_split.lower()}

    def choose(folders, form='{}'):
        return {role: next(folders[form.format(name)] for name in names
                           if form.format(name) in folders)
                for role, names in FOLDERS.items()
                if any(form.format(name) in folders for name in names)}

    whole = choose(top)
    inside = {role: subfolders(folder) for role, folder in whole.items()}
    for name in sorted(splits):
        yield choose(subfolders(top[name])) if name in top else {}
        yield {role: folders[name] for role, folders in inside.items() if name in folders}
        for folders in (choose(top, name + '_{}'), choose(top, '{}_' + name),
                        {'label': top.get(name + 'annot')} if name + 'annot' in top else {}):
            yield folders
            if 'label' in folders and name in top:      # photographs in train/
                yield {**folders, 'image': top[name]}
    divided = {'train', 'training', 'val', 'validation', 'test', 'testing'}
    if not any(divided & folders.keys() for folders in inside.values()) and (
            split == 'train' or read_split(root, split) is not None):
        yield whole


def read_split(root, split):
    """Return the set of names that the list of a split holds, or None without a list."""
    for name in [split] + ['trainval'] * (split == 'train'):
        for path in (root / form.format(name) for form in LISTS):
            if path.is_file():
                lines = read_text(path).splitlines()
                return {line.split()[0] for line in lines if line.split() and line[0] != '#'}
    return None


def refuse_panoptic(root):
    """Raise UserError for maps of COCO panoptic, whose colours number segments of any label."""
    for path in sorted(root.glob('annotations/panoptic_*')) + sorted(root.glob('panoptic_*')):
        if path.suffix == '.json' or path.is_dir():
            raise UserError(
                f'{path}: COCO panoptic, whose maps number segments by colour; write the category '
                'of each segment, as panoptic_*.json lists them, to train_label/, the number '
                'R + 256 G + 65536 B to train_inst/, and the photographs to train_img/')


# Labels that are stored as shapes or otherwise, not as maps: the endings of such files, texts one
# of which occurs in them (all, joined by &), what they are called, and what makes maps of them.
DRAW = 'draw each shape with the number of its label'
SHAPES = (
    ('.json', ('"shapes"&"points"',), 'polygons of Labelme', "Labelme's labelme2voc.py"),
    ('.json', ('"imgHeight"&"polygon"',), 'polygons of Cityscapes',
     'createTrainIdLabelImgs.py of cityscapesscripts'),
    ('.json', ('"shape_attributes"',), 'shapes of VIA', DRAW),
    ('.json', ('"images"&"file_name"', '"annotations"&"image_id"'), 'annotations of COCO',
     "annToMask of pycocotools"),
    ('.json', ('"objects"&"classTitle"',), 'shapes of Supervisely', DRAW),
    ('.xml', ('<polygon', '<polyline', '<mask'), 'shapes of CVAT',
     'export them from CVAT as "Segmentation mask"'),
    ('.xml', ('<bndbox>',), 'boxes of Pascal VOC', 'boxes are no label maps'),
    ('.csv', ('EncodedPixels',), 'run lengths', 'decode them, with the number of each label'),
    ('.geojson', ('',), 'shapes of a GIS', 'gdal_rasterize'),
    ('.shp', ('',), 'shapes of a GIS', 'gdal_rasterize'),
    ('.gpkg', ('',), 'shapes of a GIS', 'gdal_rasterize'))
YOLO = re.compile(r'\s*\d+([ \t]+[-+.\de]+){4,}[ \t]*(\n|$)')
MOST_LOOKED_INTO = 1000     # files


def refuse_shapes(files, split):
    """Raise UserError for labels that are stored as polygons, boxes or run lengths, not as maps."""
    endings = {'.txt', *(ending for ending, *_ in SHAPES)}
    for path in [path for path in files if path.suffix.lower() in endings][:MOST_LOOKED_INTO]:
        with suppress(OSError), open(path, encoding='latin-1') as file:
            text, ending = file.read(1 << 16), path.suffix.lower()
            kinds = [(what, remedy) for end, texts, what, remedy in SHAPES if end == ending and any(
                all(part in text for part in parts.split('&')) for parts in texts)]
            if ending == '.txt' and (match := YOLO.match(text)):
                kinds = [('boxes of YOLO', 'boxes are no label maps') if len(match[0].split()) == 5
                         else ('polygons of YOLO', DRAW)]
            for what, remedy in kinds[:1]:
                raise UserError(f'{path}: {what}, which are not read; write a label map of each '
                                f'photograph as PNG into {split}_label/ ({remedy}), the '
                                f'photographs into {split}_img/')


def find_labelled(root, split, long_split, pictures_below):
    """Return {role: [path]} of label maps and photographs, perhaps instance maps; None if a folder
    has no such folders. pictures_below: a function of a folder."""
    for folders in role_folders(root, split, long_split):
        if {'label', 'image'} <= folders.keys():
            files = {role: pictures_below(folder) for role, folder in folders.items()}
            if not files['label']:
                continue
            refuse_panoptic(root)
            if (listed := read_split(root, split)) is not None and any(
                    path.stem in listed for path in files['label']):
                files = {role: [path for path in paths if path.stem in listed]
                         for role, paths in files.items()}
            if files.get('inst') == []:
                del files['inst']
            return files
    return None
