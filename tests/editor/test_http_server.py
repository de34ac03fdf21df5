"""The editor over HTTP: its requests, what the server refuses, and the command `edit`."""
import base64
from concurrent.futures import ThreadPoolExecutor
import contextlib
import http.client
import io
import json
import os
from pathlib import Path
import random
import re
import signal
import socket
import threading
import time
import zipfile

import numpy as np
from PIL import Image
import pytest
import torch

from app.editor import http_server, operations, scene_files
from app.editor.session import Session
from app.runs import pictures
from conftest import MINUTES, make_run
import generate
from test_operations import (CPU, INST, LABEL, NAMES, SMALL, assert_same, make_clusters,
                             make_editor)


@contextlib.contextmanager
def served(editor, folder, allowed=(), name='scene', listed=scene_files.NO_SCENES):
    session = Session(editor, folder, name, 'a run', listed=listed)
    server = http_server.Server(session, '127.0.0.1', 0, allowed)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        session.close()


@pytest.mark.parametrize('host', ['localhost:9000', '127.0.0.1:9001', 'gpu7.cluster.example:80',
                                  '[::1]:9000', 'LOCALHOST:9000', 'example.org'])
def test_a_tunnel_is_admitted_by_the_flag_that_the_error_names(tmp_path, capsys, host):
    run = make_run(CPU, **SMALL, layout='Cityscapes', label_names=NAMES)
    with served(make_editor(run), tmp_path) as server:
        for _ in range(3):
            status, _, body = ask(server, '/state', Host=host)
            assert status == 403 and f'--allow-host {host}' in json.loads(body)['error']
            assert server.token not in body.decode()
        err = capsys.readouterr().err
        assert err.count(f'--allow-host {host}') == 1       # printed once
        flags = re.findall('--allow-host (\\S+)', err)
    with served(make_editor(run), tmp_path, flags) as server:
        for origin in None, f'http://{host.lower()}', f'https://{host.lower()}':
            assert ask(server, '/state', Host=host, Origin=origin)[0] == 200
        for other in 'localhost:9002', 'evil.example':
            assert ask(server, '/state', Host=other)[0] == 403
            assert ask(server, '/state', Host=host, Origin=f'http://{other}')[0] == 403
        assert ask(server, '/state', Host=host, X_Token='wrong')[0] == 403


@pytest.mark.parametrize('host', ['<b>', 'a b', '', 'x' * 3000, 'a\'"--allow-host evil'])
def test_hosts_that_are_none_are_not_printed(tmp_path, capsys, host):
    run = make_run(CPU, **SMALL, layout='Cityscapes', label_names=NAMES)
    with served(make_editor(run), tmp_path) as server:
        status, _, body = ask(server, '/state', Host=host)
        assert status == 403 and (not host or host not in json.loads(body)['error'])
    assert not capsys.readouterr().err


@pytest.mark.parametrize('content, message', [
    (b'GIF89a', 'holiday: photo.gif: GIF, format not read: convert it to PNG'),
    (b'\0\0\0\x18ftypheic', 'holiday: photo.gif: HEIC, format not read'),
    (b'hello', 'holiday: photo.gif: cannot be read as a picture'),
    (b'', 'holiday: photo.gif: cannot be read as a picture')])
def test_errors_have_the_names_of_files(server, content, message):
    encoded, name = base64.b64encode(content).decode(), 'holiday: photo.gif'
    requests = {'/open': {'label': encoded, 'label_name': name}}
    if server.session.editor.run.E:
        requests['/photo'] = {'data': encoded, 'name': name}
    for path, values in requests.items():
        status, _, body = ask(server, path, values)
        assert status == 400 and json.loads(body)['error'].startswith(message), body


@pytest.fixture
def server(tmp_path):
    run = make_run(CPU, **SMALL, layout='Cityscapes', label_names=NAMES)
    with served(make_editor(run), tmp_path) as server:
        yield server


def ask(server, path, given=None, method='POST', raw=None, timeout=60 * MINUTES, **headers):
    """Make one request and return status, headers and body. headers: None leaves one out."""
    body = raw if raw is not None else json.dumps(given or {}).encode()
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=timeout)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in {'Host': server.names[0], 'X-Token': server.token,
                        'Content-Type': 'application/json', 'Content-Length': str(len(body)),
                        **{name.replace('_', '-'): value for name, value in headers.items()}
                        }.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def post(server, path, given=None):
    """Make a request that succeeds and return its JSON."""
    status, _, body = ask(server, path, given)
    assert status == 200, body
    return json.loads(body)


def picture(server, path, given):
    status, headers, body = ask(server, path, given)
    assert status == 200 and headers['Content-Type'] == 'image/png', body
    return np.asarray(Image.open(io.BytesIO(body)))


# ------------------------------------------------------------------------------ the requests

def test_edit_save_and_open_a_scene(server, tmp_path):
    state = post(server, '/state')
    assert state['size'] == [8, 6] and state['labels'][26]['name'] == 'car'
    assert {'id': 26000, 'label': 26, 'pixels': 4, 'box': [1, 3, 3, 5], 'style': 0} in (
        state['objects'])
    first = picture(server, '/picture', {'version': state['version']})
    assert first.shape == (6, 8, 3)
    assert (first == picture(server, '/picture', {'version': state['version']})).all()
    assert picture(server, '/picture', {'version': state['version'], 'preview': True}).shape == (
        3, 4, 3)

    after = post(server, '/edit', {'edits': [{'do': 'remove', 'object': 26000}]})
    assert after['undo'] == 1 and after['unsaved'] and after['maps_version'] > state['maps_version']
    assert ask(server, '/picture', {'version': state['version']})[0] == 409
    body = ask(server, '/maps')[2]
    assert (np.frombuffer(body, '<u2', 48).reshape(6, 8)
            == server.session.editor.state.label).all()
    assert 26000 not in np.frombuffer(body, '<i4', offset=96)

    saved = post(server, '/save')
    assert not saved['unsaved'] and [path.split('scene-001')[1] for path in saved['files']] == [
        '_labelIds.png', '_instanceIds.png', '_styles.json', '.png']
    assert post(server, '/save')['files'][-1].endswith('scene-002.png')
    shown = picture(server, '/picture', {'version': saved['version']})
    assert (np.asarray(Image.open(saved['files'][-1])) == shown).all()

    def read(path):
        with open(path, 'rb') as file:
            return base64.b64encode(file.read()).decode()
    post(server, '/edit', {'edits': [{'do': 'reset'}]})
    label, inst, styles, _ = map(read, saved['files'])
    opened = post(server, '/open', {'label': label, 'inst': inst, 'styles': styles})
    assert (picture(server, '/picture', {'version': opened['version']}) == shown).all()
    assert not [path for path in tmp_path.iterdir() if 'upload' in path.name]


def encode(write, *words, **named):
    """Return what `write`, as picture.save, writes into a file, in base64."""
    file = io.BytesIO()
    write(file, *words, **named)
    return base64.b64encode(file.getvalue()).decode()


def encoded_map(ids):
    return encode(Image.fromarray(ids.astype(np.uint16)).save, 'PNG')


def kept(server):
    """Return the names of the recovery files, once all are written."""
    server.session.keeper.submit(int).result()
    return sorted(path.name for path in server.session.folder.glob('.*-unsaved*'))


PAINT = {'edits': [{'do': 'paint', 'label': 'bus', 'brush': [[0, 0]]}]}


def test_every_opened_scene_has_a_recovery_file(server, tmp_path):
    post(server, '/edit', PAINT)
    label = encoded_map(LABEL[:4])
    opened = post(server, '/open', {'label': label, 'label_name': 'other_labelIds.png'})
    assert not opened['unsaved'] and opened['name'] == 'other' and 'other, ' in opened['title']
    assert kept(server) == ['.scene-unsaved.npz']
    post(server, '/edit', PAINT)
    post(server, '/open', {'label': label, 'label_name': '../../other.png'})
    post(server, '/edit', PAINT)
    names = ['.other-unsaved-001.npz', '.other-unsaved.npz', '.scene-unsaved.npz']
    assert kept(server) == names
    assert '/other-001.png' in post(server, '/save')['files'][-1]
    assert kept(server) == names                            # for a page that outlives the server

    with served(make_editor(server.session.editor.run), server.session.folder) as again:
        offered = {about['name']: about for about in post(again, '/state')['unsaved_found']}
        about = offered['other']
        assert offered.keys() == {'other', 'scene'} and about['edits'] == 1 and about['time'] > 1e9
        assert picture(again, '/kept_picture', {'file': about['file']}).shape == (4, 8, 3)
        assert ask(again, '/kept_picture', {'file': '../x'})[0] == 400
        state = post(again, '/recover', {'restore': True, 'file': about['file']})
        assert state['name'] == 'other' and state['size'] == [8, 4] and state['unsaved']
        assert len(state['unsaved_found']) == 1
        assert ask(again, '/recover', {'restore': True, 'file': ''})[0] == 400
        state = post(again, '/recover', {'restore': True})
        assert state['name'] == 'scene' and not state['unsaved_found']
        kept(again)
        about = scene_files.read_about(tmp_path / '.scene-unsaved-002.npz')
        assert about['edits'] == 1
        assert '.scene-unsaved-002.npz' in kept(again) and len(state['saved_found']) == 1
    assert not (tmp_path / '.other-unsaved-001.npz').exists()       # the session has ended well


def test_undo_goes_back_to_the_scene_before(server):
    post(server, '/edit', PAINT)
    post(server, '/open', {'label': encoded_map(LABEL), 'label_name': 'other.png'})
    post(server, '/edit', PAINT)
    state = post(server, '/edit', {'edits': [{'do': 'undo'}] * 2})
    assert state['name'] == 'scene' and state['unsaved']
    assert 'scene-001' in post(server, '/save')['files'][-1] and kept(server)


def test_forgotten_edits_are_kept(server):
    for name in ('first', 'second'):
        (server.session.folder / f'.{name}-unsaved.npz').write_bytes(name.encode())
    with served(make_editor(server.session.editor.run), server.session.folder) as again:
        names = {about['name'] for about in post(again, '/state')['unsaved_found']}
        assert names == {'first', 'second'}
        status, _, body = ask(again, '/recover', {'restore': True, 'file': '.first-unsaved.npz'})
        assert status == 400 and b'.first-unsaved.npz: the unsaved edits cannot be read' in body
        for _ in range(2):
            post(again, '/recover', {'restore': False})
        assert kept(again) == ['.first-unsaved-001.forgotten', '.second-unsaved-001.forgotten']


def test_a_recovery_file_that_cannot_be_written(server, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError('No space left on device')
    with monkeypatch.context() as patch:
        patch.setattr('app.editor.scene_files.np.savez_compressed', full)
        post(server, '/edit', PAINT)
        kept(server)
        assert 'No space left' in post(server, '/progress')['keep_error']
        assert 'No space left' in capsys.readouterr().err
    post(server, '/edit', PAINT)
    kept(server)
    assert post(server, '/progress')['keep_error'] is None


def test_another_tab(server):
    """What a page has not seen is refused, except its own changes; scripts send no version."""
    version = post(server, '/state')['version']
    for _ in range(3):                                      # quickly, one after the other
        first = post(server, '/edit', {**PAINT, 'version': version, 'page': 'first'})
    for path, given in (('/edit', PAINT), ('/save', {}), ('/open', {'label': encoded_map(LABEL)})):
        status, _, body = ask(server, path, {**given, 'version': version, 'page': 'second'})
        assert status == 409 and b'changed in another tab' in body
    undo = {'edits': [{'do': 'undo'}], 'page': 'second', 'version': first['version']}
    second = post(server, '/edit', undo)
    assert second['undo'] == 2
    status, _, body = ask(server, '/edit', {**PAINT, 'page': 'first', 'version': first['version']})
    assert status == 409 and post(server, '/state')['version'] == second['version']
    post(server, '/edit', PAINT)
    post(server, '/save')
    assert ask(server, '/save', {'page': 'second', 'version': second['version']})[0] == 409
    status, _, body = ask(server, '/edit', {**PAINT, 'version': version - 1, 'page': 'second'})
    assert status == 409 and b'the editor was started again' in body


def test_names_and_downloads(server, tmp_path):
    """A scene is saved under a name that no file has; what is downloaded is what is saved, and the
    edits since the scene was opened, also of those before a restart."""
    post(server, '/edit', PAINT)
    post(server, '/photo', {'data': encode(Image.new('RGB', (8, 6), (9, 99, 200)).save, 'PNG')})
    state = post(server, '/edit', {'edits': [
        {'do': 'style', 'label': 'car', 'style': 'photo'}, {'do': 'remove', 'object': 24000},
        {'do': 'style', 'object': 7, 'style': 'random', 'seed': 3}]})
    assert state['edits'] == 5 and state['instances']      # a style for each car
    kept(server)
    with served(make_editor(server.session.editor.run), tmp_path) as again:
        assert post(again, '/recover', {'restore': True})['edits'] == 5
        edits = ask(again, '/download', {'file': 'edits'})[2]
        (tmp_path / 'edits.json').write_bytes(edits)
        third = make_editor(again.session.editor.run)
        paths = [*scene_files.run_script(third, tmp_path / 'edits.json', tmp_path / 'out', 'x')]
        assert_same(third.state, server.session.editor.state)

    saved = post(server, '/save', {'name': 'my street (2)'})
    assert saved['name'] == 'my street (2)' and 'my street (2), ' in saved['title']
    assert [path.name for path in map(Path, saved['files'])] == [
        f'my street (2){ending}' for ending in (
            '_labelIds.png', '_instanceIds.png', '_styles.json', '.png')]
    roles = 'label', 'inst', 'styles', 'picture'
    contents = [ask(server, '/download', {'file': role})[2] for role in roles]
    assert contents == [Path(path).read_bytes() for path in saved['files']]
    assert contents == [path.read_bytes() for path in paths[-4:]]
    status, headers, body = ask(server, '/download', {'file': 'all', 'name': 'a b'})
    assert headers['Content-Type'] == 'application/zip'
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.namelist() == ['a b_labelIds.png', 'a b_instanceIds.png', 'a b_styles.json',
                                      'a b.png', 'a b_edits.json']
        assert [archive.read(name) for name in archive.namelist()[:4]] == contents
    post(server, '/edit', {'edits': [{'do': 'reset'}]})
    status, _, body = ask(server, '/download', {'file': 'edits'})
    assert status == 400 and b'edits: this scene has none' in body

    assert 'my street (2)-001.png' in post(server, '/save')['files'][-1]
    status, _, body = ask(server, '/save', {'name': 'my street (2)'})
    assert status == 400 and 'choose another, for example my street (2)-002' in json.loads(
        body)['error']
    kept(server)
    before = sorted(tmp_path.iterdir())
    for name in ('', ' ', '.', '..', '../x', 'a/b', '.x', 'x.', 'x' * 51, 'x\n', 'x\0', '\ud800', 7,
                 'a_labelIds', 'a_seg', 'a_gtFine_color', '-x'):
        status, _, body = ask(server, '/save', {'name': name})
        assert status == 400 and (b'expected a name of 1 to 50 letters' in body
                                      or b'would be taken for a map' in body)
    assert sorted(tmp_path.iterdir()) == before


def test_blank_scenes(server):
    state = post(server, '/state')
    assert state['default_size'] == [8, 6]                  # the run was trained at many
    state = post(server, '/blank', {'label': 'car', 'size': [32, 16]})
    assert state['size'] == [32, 16] and state['name'] == 'blank' and not state['unsaved']
    assert state['objects'] == [{'id': 26000, 'label': 26, 'pixels': 512, 'box': [0, 0, 32, 16],
                                 'style': 0}]
    assert picture(server, '/picture', {'version': state['version']}).shape == (16, 32, 3)
    state = post(server, '/edit', PAINT)
    assert state['edits'] == 1 and kept(server) == ['.blank-unsaved.npz']
    for size in ([15, 16], [16], [16.5, 16], [1 << 15, 1 << 15], '16x16', [5000, 5000]):
        assert ask(server, '/blank', {'label': 7, 'size': size})[0] == 400
    status, _, body = ask(server, '/blank', {'label': 'carr', 'size': [16, 16]})
    assert status == 400 and b'did you mean car?' in body
    assert post(server, '/state')['version'] == state['version']


@pytest.fixture
def folder_server(tmp_path):
    """A server of the three scenes of a folder: a, b with a photograph, and c, which was saved."""
    run, folder = make_run(CPU, **SMALL, layout='Cityscapes', label_names=NAMES), tmp_path / 'maps'
    folder.mkdir()
    for name, label in (('a', LABEL), ('b', LABEL[:4]), ('c', LABEL)):
        inst = INST[:len(label)]
        for ending, ids in (('labelIds', label), ('instanceIds', inst)):
            Image.fromarray(ids.astype(np.uint16)).save(folder / f'{name}_{ending}.png')
    editor = make_editor(run)
    editor.edit([{'do': 'style', 'object': 7, 'style': [0.1, 0.2, 0.3]}])
    (folder / 'c_styles.json').write_bytes(scene_files.encode_scene(editor, 'styles')[1])
    (tmp_path / 'photos').mkdir()
    Image.new('RGB', (8, 4), (200, 30, 30)).save(tmp_path / 'photos' / 'b.png')
    files = scene_files.find_scenes(folder, folder)
    photo = scene_files.find_scenes(folder / 'b_labelIds.png', None, None, tmp_path / 'photos')
    files['b'] = files['b']._replace(photo=photo['b'].photo)
    listed = scene_files.SceneList(files, None, 0)
    (tmp_path / 'out').mkdir()
    first = scene_files.open_listed(run, make_clusters(), listed, 'a', 'a run')
    with served(first, tmp_path / 'out', name='a', listed=listed) as server:
        yield server


def test_the_scenes_of_a_folder(folder_server):
    """Each is opened by its name, and again with its unsaved edits, which are kept in one file."""
    server = folder_server
    assert post(server, '/state')['scenes'] == 3
    assert post(server, '/scenes') == {'open': 'a', 'scenes': [
        {'name': 'a', 'styles': False}, {'name': 'b', 'styles': True}, {'name': 'c', 'styles': True}
    ]}
    assert (picture(server, '/scene_map', {'scene': 'a'})
            == pictures.label_colours(server.session.editor.config)[LABEL]).all()
    assert ask(server, '/scene_map', {'scene': '../a'})[0] == 400

    edited = post(server, '/edit', {'edits': [
        PAINT['edits'][0], {'do': 'move', 'object': 26000, 'by': [1, 0]}]})
    shown = server.session.editor.state
    for name, size in (('b', [8, 4]), ('c', [8, 6])):
        state = post(server, '/open_scene', {'scene': name})
        assert state['name'] == name and state['size'] == size and not state['unsaved']
    assert server.session.editor.state.styles[7] == (None, tuple(
        np.float32([0.1, 0.2, 0.3]).tolist()))              # of the saved file
    assert kept(server) == ['.a-unsaved.npz']
    again = post(server, '/open_scene', {'scene': 'a'})
    assert again['unsaved'] and again['objects'] == edited['objects']
    assert_same(server.session.editor.state, shown)
    post(server, '/edit', {'edits': [{'do': 'move', 'object': 26000, 'by': [1, 1]}]})
    session = json.loads(ask(server, '/download', {'file': 'edits'})[2])
    fresh = scene_files.open_listed(server.session.editor.run, make_clusters(),
                                    server.session.listed, 'a', 'a run')
    fresh.edit(session)
    assert_same(fresh.state, server.session.editor.state)
    about = scene_files.read_about(server.session.folder / kept(server)[0])
    assert about['name'] == 'a' and about['edits'] == 3
    post(server, '/edit', {'edits': [{'do': 'reset'}]})
    assert (server.session.editor.state.label == LABEL).all()
    post(server, '/edit', {'edits': [{'do': 'undo'}]})
    post(server, '/save')
    assert scene_files.read_about(server.session.folder / kept(server)[0])['saved']
    post(server, '/open_scene', {'scene': 'b'})
    state = post(server, '/open_scene', {'scene': 'a'})     # what is saved is in its own files
    assert not state['unsaved'] and not state['edits']


def test_a_scene_of_the_list_keeps_its_edits_after_a_restart(folder_server):
    post(folder_server, '/edit', PAINT)
    kept(folder_server)
    session = folder_server.session
    second = scene_files.open_listed(session.editor.run, make_clusters(), session.listed, 'b',
                                     'a run')
    with served(second, session.folder, listed=session.listed, name='b') as again:
        post(again, '/recover', {'restore': True})
        edited = post(again, '/edit', {'edits': [{'do': 'move', 'object': 26000, 'by': [1, 0]}]})
        assert post(again, '/scenes')['open'] == 'a'
        for edit in ([], [{'do': 'style', 'label': 'road', 'style': 1}]):
            post(again, '/open_scene', {'scene': 'b'})
            state = post(again, '/open_scene', {'scene': 'a'})
            assert state['unsaved'] and state['objects'] == edited['objects']
            if edit:
                post(again, '/edit', {'edits': edit})
        kept(again)
    first = scene_files.open_listed(session.editor.run, make_clusters(), session.listed, 'a',
                                    'a run')
    with served(first, session.folder, listed=session.listed, name='a') as third:
        for about in post(third, '/state')['unsaved_found']:
            state = post(third, '/recover', {'restore': True, 'file': about['file']})
        assert state['history'] == ['open a', 'restore']
        post(third, '/edit', {'edits': [{'do': 'reset'}]})
        assert (third.session.editor.state.label == LABEL).all()


def test_unsaved_edits_ahead_in_the_history_are_found(folder_server):
    """A click in the history leads before the opening of a scene, and an edit drops its states."""
    post(folder_server, '/edit', PAINT)
    post(folder_server, '/open_scene', {'scene': 'b'})
    edited = post(folder_server, '/edit', PAINT)
    back = {'edits': [{'do': 'goto', 'state': 1}]}
    assert post(folder_server, '/edit', back)['name'] == 'a'
    state = post(folder_server, '/open_scene', {'scene': 'b'})
    assert state['unsaved'] and state['objects'] == edited['objects']
    kept(folder_server)
    post(folder_server, '/edit', back)
    dropped = post(folder_server, '/edit', PAINT)
    assert [about['name'] for about in dropped['unsaved_found']] == ['b']
    state = post(folder_server, '/recover', {'restore': True})
    assert state['name'] == 'b' and state['objects'] == edited['objects']
    assert not state['unsaved_found']


@pytest.mark.parametrize('is_same', [True, False])
def test_edits_are_restored_onto_the_scene_that_they_are_of(is_same, server, tmp_path):
    """Also where it was saved under another name; not onto a scene that only has the same name."""
    post(server, '/edit', PAINT)
    post(server, '/save', {'name': 'mine'})
    edited = post(server, '/edit', {'edits': [{'do': 'remove', 'object': 26000}]})
    kept(server)
    other = make_editor(server.session.editor.run)
    if not is_same:
        label = other.state.label.copy()
        label[0] = 11                                       # another map of the same size
        other = operations.Editor(other.run, other.clusters, operations.State(
            label, other.state.inst, other.state.styles))
    with served(other, server.session.folder, name='scene' if is_same else 'mine') as again:
        state = post(again, '/recover', {'restore': True})
        assert state['name'] == 'mine' and state['objects'] == edited['objects']
        before = state['history'][:-1]
        assert state['history'] == [*before, 'restore' if is_same else 'open mine']
        reset = post(again, '/edit', {'edits': [{'do': 'reset'}]})
        assert (reset['objects'] == edited['objects']) != is_same


def test_styles_of_other_scenes(folder_server):
    """Of a photograph, a file of styles, and a scene of the folder; and between two styles."""
    server = folder_server
    e = server.session.editor
    photo = Image.new('RGB', (8, 6), (30, 30, 200))
    label, inst = encoded_map(LABEL), encoded_map(INST)
    for given in ({'scene': 'b'}, {'scene': 'c'}, {
            'label': label, 'inst': inst, 'photo': encode(photo.save, 'PNG'), 'photo_name': 'p.png'
    }):
        post(server, '/borrow', given)
    notes = post(server, '/borrow', {'label': label, 'inst': encoded_map(INST[::-1]),
                                     'photo': encode(photo.save, 'PNG'), 'inst_name': 'i.png'})
    assert 'i.png: ' in notes['notes'][0] and 'of another scene?' in notes['notes'][0]
    server.session.borrowed.pop()
    b, c, p = post(server, '/offers')['borrowed']
    assert [source['name'] for source in (b, c, p)] == ['b', 'c', 'p.png']
    assert {each['label'] for each in b['styles']} == {*LABEL[:4].ravel().tolist()}
    assert np.float32(0.3) == np.float32(next(
        each['features'] for each in c['styles'] if each['label'] == 7)[2])
    scene = generate.make_scene(e.config, *(torch.from_numpy(x)[None, None] for x in (LABEL, INST)))
    image = torch.tensor(np.array(photo)).permute(2, 0, 1)[None] / 127.5 - 1
    vectors = generate.encode_image(e.run, image, scene)
    largest = vectors[scene.ids == 26000][0]
    first = next(each['features'] for each in p['styles'] if each['label'] == 26)
    assert torch.allclose(torch.tensor(first), largest, atol=1e-6)

    found = post(server, '/features', {'object': 26000})
    assert found['now'] == list(e.state.styles[26000].features) and len(found['styles']) == 3
    between = [(a + b) / 2 for a, b in zip(found['styles'][0], first)]
    assert picture(server, '/thumbnail', {'object': 26000, 'style': between}).ndim == 3
    state = post(server, '/edit', {'edits': [{'do': 'style', 'label': 'car', 'style': between}]})
    assert state['undo'] == 1
    for given, message in (
            ({}, 'expected either'), ({'scene': 'b', 'label': label}, 'expected either'),
            ({'scene': 'a'}, 'a: a photograph of that scene is missing; name a folder of them'),
            ({'scene': 'x'}, '"x": expected one of the names in scenes'),
            ({'label': label, 'label_name': 'm.png'}, 'm.png: a photograph of that scene is'),
            ({'label': label, 'photo': 'AAAA', 'photo_name': 'x.jpg'}, 'x.jpg: cannot be read'),
            ({'label': label, 'inst': encoded_map(INST[:3]), 'photo': encode(photo.save, 'PNG'),
              'inst_name': 'i.png', 'label_name': 'm.png'}, 'i.png is 8x3 and m.png is 8x6')):
        status, _, body = ask(server, '/borrow', given)
        assert status == 400 and message in json.loads(body)['error'], body
    assert post(server, '/state')['borrowed'] == 3


def test_what_is_saved(server):
    """Undo and redo to the saved state; an edit that changes nothing; the scene as opened."""
    def unsaved(*edits):
        return post(server, '/edit', {'edits': [{'do': edit} for edit in edits]})['unsaved']

    assert not post(server, '/state')['unsaved']
    assert post(server, '/edit', PAINT)['unsaved'] and kept(server)
    assert not unsaved('undo') and not kept(server) and unsaved('redo')
    assert not unsaved('reset')
    unsaved('undo')
    post(server, '/edit', {'edits': [{'do': 'remove', 'object': 26000}]})
    post(server, '/save')
    assert not post(server, '/state')['unsaved']
    assert unsaved('undo') and not unsaved('redo')


@pytest.mark.parametrize('part', ['labelIds.png', 'instanceIds.png', 'styles.json', '001.png'])
def test_a_full_disk_leaves_no_file_of_a_scene(server, monkeypatch, part):
    replace = http_server.os.replace

    def full(source, target):
        if str(target).endswith(part):
            raise OSError('No space left on device')
        replace(source, target)
    monkeypatch.setattr('app.common.files.os.replace', full)
    status, _, body = ask(server, '/save')
    assert status == 400 and b'No space left' in body
    assert not list(server.session.folder.iterdir()) and not post(server, '/state')['unsaved']
    monkeypatch.undo()
    assert len(post(server, '/save')['files']) == 4


def test_a_map_that_is_too_large(server):
    """It is refused before it is decoded."""
    label = encode(Image.new('L', (5000, 5000)).save, 'PNG')
    started = time.monotonic()
    status, _, body = ask(server, '/open', {'label': label, 'label_name': 'huge.png'})
    assert status == 400 and b'huge.png: 5000x5000 is too large for the page' in body
    assert time.monotonic() - started < 10 * MINUTES


def test_the_page_hears_warnings(server):
    size = server.session.editor.config.size
    server.session.editor.config.size = (64, 64)
    try:
        state = post(server, '/open', {'label': encoded_map(LABEL), 'label_name': 'my map.png'})
    finally:
        server.session.editor.config.size = size
    assert state['warnings'] == ['note: my map.png is read at 8x6, a run was trained at 64x64; '
                                 'use --size 74x55']
    state = post(server, '/edit', {'edits': [{'do': 'relabel', 'object': [1, 3], 'label': 27}]})
    assert state['no_styles'] == ['truck']
    learned = {label['name'] for label in state['labels'] if label['learned']}
    assert 'bus' in learned and 'truck' not in learned


def test_thumbnails_and_photographs(server):
    shapes = {picture(server, '/thumbnail', {'object': 26000, 'style': k}).shape for k in range(3)}
    assert len(shapes) == 1
    file = io.BytesIO()
    Image.new('RGB', (16, 12), (200, 30, 30)).save(file, 'JPEG')
    photo = base64.b64encode(file.getvalue()).decode()
    assert post(server, '/photo', {'data': photo})['photo']
    post(server, '/edit', {'edits': [{'do': 'style', 'object': 26000, 'style': 'photo'}]})
    for wrong in ('', '!', base64.b64encode(b'no picture').decode(), 7, None):
        status, _, body = ask(server, '/photo', {'data': wrong})
        assert status == 400 and 'error' in json.loads(body)


def test_a_newer_edit_cancels_an_older_picture(server):
    """Requests are answered while the network computes; it stops between two layers."""
    session, entered, go_on = server.session, threading.Event(), threading.Event()
    layer = next(module for module in session.editor.run.G.modules() if not list(module.children()))

    def hold(*_):
        entered.set()
        go_on.wait(60 * MINUTES)
    handle = layer.register_forward_hook(hold)
    with ThreadPoolExecutor(1) as pool:
        old = pool.submit(ask, server, '/picture', {'version': session.editor.version})
        assert entered.wait(60 * MINUTES)
        assert post(server, '/progress')['progress'] > 0
        new = post(server, '/edit', {'edits': [{'do': 'remove', 'object': 26000}]})
        go_on.set()
        assert old.result()[0] == 409
    handle.remove()
    picture(server, '/picture', {'version': new['version']})
    assert post(server, '/progress')['progress'] is None


def test_fifty_requests_at_once(server):
    with ThreadPoolExecutor(50) as pool:
        edits = list(pool.map(lambda i: ask(server, '/edit', {'edits': [
            {'do': 'style', 'object': 26000, 'style': i % 3}]})[0], range(50)))
    assert edits == [200] * 50 and post(server, '/state')['undo'] == 50
    version = post(server, '/state')['version']
    with ThreadPoolExecutor(50) as pool:
        pictures = list(pool.map(lambda _: ask(server, '/picture', {'version': version})[2],
                                 range(50)))
    assert len(set(pictures)) == 1


# ------------------------------------------------------------------------ what is refused

def test_the_page(server):
    status, headers, body = ask(server, f'/?token={server.token}', method='GET')
    assert status == 200 and body == http_server.read_page()
    assert ask(server, '/', method='GET', X_Token=None)[2] == body      # it holds no secret
    assert server.token.encode() not in body
    for path in http_server.PAGE.iterdir():                 # every file is in it, but for its tags
        assert path.suffix == '.html' or path.read_bytes() in body
    assert "default-src 'none'" in headers['Content-Security-Policy']
    assert "'unsafe" not in headers['Content-Security-Policy']
    assert not re.search(rb'https?://|style="| on\w+="', body)      # the policy would block it
    assert 'Access-Control-Allow-Origin' not in headers


@pytest.mark.parametrize('status, path, changes', [
    (403, '/state', {'X_Token': 'wrong'}), (403, '/state', {'X_Token': None}),
    (403, '/state', {'X_Token': 'ü'}),
    (403, '/state', {'Host': 'evil.example'}), (403, '/state', {'Host': None}),
    (403, '/state', {'Host': '127.0.0.1'}),                 # without the port
    (403, '/state', {'Origin': 'http://evil.example'}), (403, '/state', {'Origin': 'null'}),
    (415, '/state', {'Content_Type': 'text/plain'}), (415, '/state', {'Content_Type': None}),
    (411, '/state', {'Content_Length': None}), (411, '/state', {'Content_Length': '-1'}),
    (411, '/state', {'Content_Length': '2', 'Transfer_Encoding': 'chunked'}),
    (413, '/state', {'Content_Length': str(1 << 30)}),
    (404, '/', {}), (404, '/etc/passwd', {}), (404, '/../edit.py', {}), (404, '/state/', {}),
    (403, '/?token=wrong', {'method': 'GET'}), (403, '/?token=', {'method': 'GET'}),
    (404, '/page.html', {'method': 'GET'}), (404, '/state', {'method': 'GET'}),
    (501, '/state', {'method': 'PUT'}), (501, '/state', {'method': 'OPTIONS'}),
    (501, '/state', {'method': 'DELETE'}), (400, '/state', {'raw': b'{'}),
    (400, '/state', {'raw': b'[]'}), (400, '/state', {'raw': b'{"a": NaN}'}),
    (400, '/state', {'raw': b'[' * 100_000}), (400, '/state', {'raw': b'\xff\xfe'}),
    (400, '/state', {'raw': b'{"more": 1}'}), (400, '/edit', {'raw': b'{}'}),
    (400, '/edit', {'raw': b'{"edits": []}'}), (400, '/picture', {'raw': b'{"version": "1"}'}),
    (400, '/picture', {'raw': b'{"version": ' + b'9' * 5000 + b'}'}),
    (409, '/picture', {'raw': b'{"version": 0}'})])
def test_refused(server, status, path, changes):
    before = server.session.editor.state
    got, headers, body = ask(server, path, **changes)
    assert got == status and 'error' in json.loads(body)
    assert 'Access-Control-Allow-Origin' not in headers
    assert server.session.editor.state is before
    assert post(server, '/state')['undo'] == 0


def test_requests_of_the_same_origin(server):
    for name in server.names:
        assert ask(server, '/state', Host=name, Origin=f'http://{name}')[0] == 200


def test_silent_clients(server, monkeypatch):
    """They are disconnected after a while; other clients do not wait for them."""
    monkeypatch.setattr(http_server.Handler, 'timeout', 4)
    head = (f'POST /edit HTTP/1.1\r\nHost: {server.names[0]}\r\nX-Token: {server.token}\r\n'
            'Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"edits":').encode()
    silent = [socket.create_connection(server.server_address) for _ in range(20)]
    for client in silent[:10]:
        client.sendall(head)
    started = time.monotonic()
    assert post(server, '/state')['undo'] == 0 and time.monotonic() - started < 4
    for client in silent:
        client.settimeout(60 * MINUTES)
        with contextlib.suppress(OSError):
            while client.recv(1000):
                pass
        client.close()
    assert post(server, '/state')['undo'] == 0


def test_idle_connections_do_not_shut_others_out(server):
    idle = [socket.create_connection(server.server_address) for _ in range(300)]
    started = time.monotonic()
    for _ in range(3):
        assert post(server, '/state')['undo'] == 0
    assert time.monotonic() - started < http_server.Handler.timeout / 2
    for client in idle:
        client.close()


def test_errors_for_a_person_are_a_page(server):
    status, headers, body = ask(server, '/?token=<b>', method='GET', Accept='text/html,*/*')
    assert status == 403 and headers['Content-Type'].startswith('text/html')
    assert b'<h1>p2phd edit</h1>The token is missing or wrong. Open the address' in body
    status, headers, body = ask(server, '/<b>', method='GET', Accept='text/html')
    assert status == 404 and b'<b>' not in body


def test_thousands_of_mutated_requests(server, capfd, tmp_path):
    """Bytes, JSON values and edits are mutated. The server answers or disconnects, and the scene
    stays consistent."""
    draw = random.Random(0)
    good = [('/edit', {'edits': [{'do': 'paint', 'label': 'car', 'to': 'new', 'width': 2,
                                  'brush': [[1, 2], [3.5, 4]]}]}),
            ('/edit', {'edits': [{'do': 'move', 'object': 26000, 'by': [1, 1], 'scale': 1.5,
                                  'flip': True, 'copy': False}]}),
            ('/edit', {'edits': [{'do': 'style', 'object': [1, 3], 'style': 1, 'seed': 3},
                                 {'do': 'undo'}, {'do': 'erase', 'rectangle': [0, 0, 2, 2]}]}),
            ('/thumbnail', {'object': 26000, 'style': 0}), ('/state', {}), ('/maps', {}),
            ('/picture', {'version': 1, 'preview': True}), ('/recover', {'restore': False}),
            ('/open', {'label': 'AAAA', 'inst': None, 'styles': None}), ('/photo', {'data': ''}),
            ('/download', {'file': 'all', 'name': 'x', 'version': None, 'page': 'p'}),
            ('/blank', {'label': 'road', 'size': [16, 15]}), ('/features', {'object': 26000}),
            ('/borrow', {'scene': None, 'label': 'AAAA', 'photo': 'AAAA', 'photo_name': 'x'}),
            ('/scene_map', {'scene': 'a'}), ('/open_scene', {'scene': 'a', 'version': 1}),
            ('/scenes', {}), ('/offers', {})]
    odd = [None, True, -1, 0, 1e308, 10 ** 30, 1.5, '', 'car', 'x' * 300, [], {}, [[]], [None] * 3,
           [1, 2], [0.5, 'a'], {'do': 'remove'}, '\ud800', '../../x', [[1e9, 1e9]]]

    def mutate(value):
        if draw.random() < 0.15:
            return draw.choice(odd)
        if isinstance(value, dict):
            value = {key: mutate(x) for key, x in value.items() if draw.random() < 0.95}
            return {**value, 'x': 1} if draw.random() < 0.03 else value
        return [mutate(x) for x in value] if isinstance(value, list) else value

    def send(i):
        path, given = draw.choice(good)
        body = json.dumps(mutate(given)).encode()
        head = (f'POST {path} HTTP/1.1\r\nHost: {server.names[0]}\r\nX-Token: {server.token}\r\n'
                f'Content-Type: application/json\r\nContent-Length: {len(body)}\r\n'
                'Connection: close\r\n\r\n').encode()
        whole = bytearray(head + body)
        if i % 3 == 0:
            for _ in range(draw.randint(1, 4)):
                at = draw.randrange(len(whole))
                whole[at:at + draw.choice((0, 1, 1, 5))] = draw.randbytes(draw.choice((0, 1, 3)))
        with socket.create_connection(server.server_address, timeout=60 * MINUTES) as client:
            with contextlib.suppress(OSError):
                client.sendall(whole)
                client.shutdown(socket.SHUT_WR)
            answer = b''
            with contextlib.suppress(OSError):
                while part := client.recv(1 << 16):
                    answer += part
        assert b'Traceback' not in answer and b' 500 ' not in answer[:20], (whole, answer)

    for i in range(3000):
        send(i)
        if i % 250 == 0:
            post(server, '/edit', {'edits': [{'do': 'reset'}]})
            assert (server.session.editor.state.label == LABEL).all()
            assert (server.session.editor.state.inst == INST).all()
    server.session.keeper.submit(int).result()
    assert {path.name for path in tmp_path.iterdir()} <= {'.scene-unsaved.npz'}
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) <= http_server.MAX_REPORTED
    assert all('a request was refused: ' in line for line in lines)


# ---------------------------------------------------------------------------- the command

class Editor:
    """The command `edit` in a process of `launch`, with the methods of subprocess.Popen."""

    def __init__(self, process, out, err):
        self.process, self.out, self.err = process, out, err
        self.kill, self.wait = process.kill, process.join

    def send_signal(self, number):
        os.kill(self.process.pid, number)

    @property
    def returncode(self):
        return self.process.exitcode

    def communicate(self, timeout=60 * MINUTES):
        """Wait for the end; return what it has written to stdout and to stderr."""
        self.wait(timeout)
        return self.out.read_text(), self.err.read_text()


@pytest.fixture
def started(launch, trained, scenes, tmp_path):
    """Return a function that starts `edit` on a scene and returns its process and address."""
    label = next((scenes / 'gtFine' / 'val').rglob('*labelIds.png'))

    def start(*words):
        number = len(list(tmp_path.glob('stdout*')))
        out, err = tmp_path / f'stdout{number}.txt', tmp_path / f'stderr{number}.txt'
        out.touch()
        process = launch(['edit', '--run', trained, '--label', label, '--out', tmp_path / 'out',
                          '--no-browser', *words], tmp_path, out=out, err=err)
        while not (address := re.search('^http://.*\n', out.read_text(), re.M)) and (
                process.is_alive()):
            time.sleep(0.01)
        return Editor(process, out, err), address and address[0].strip()
    return start


class Address:
    """A stand-in for the server in `ask`, made from the address that the command prints."""

    def __init__(self, address):
        host, self.token = re.fullmatch(r'http://(.*)/\?token=(.*)', address).groups()
        self.names, self.server_address = [host], (host.split(':')[0], int(host.split(':')[1]))


def test_unsaved_edits_are_offered_at_the_next_start(started, tmp_path):
    process, address = started()
    server = Address(address)
    edited = post(server, '/edit', {'edits': [{'do': 'paint', 'label': 'bus',
                                               'rectangle': [1, 1, 9, 9]}]})
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60 * MINUTES)
    assert process.returncode == 0 and 'not saved' in out and '-unsaved.npz' in out and err == ''

    process, address = started()
    server = Address(address)
    assert post(server, '/state')['unsaved_found']
    post(server, '/edit', {'edits': [{'do': 'paint', 'label': 'wall', 'brush': [[3, 3]]}]})
    process.send_signal(signal.SIGINT)                      # both are kept until /recover
    process.communicate(timeout=60 * MINUTES)
    assert len(list((tmp_path / 'out').glob('.*.npz'))) == 2

    process, address = started()
    server = Address(address)
    again = post(server, '/recover', {'restore': False})
    assert again['undo'] == 0 and again['unsaved_found']
    again = post(server, '/recover', {'restore': True})
    assert again['objects'] == edited['objects'] and not again['unsaved_found']
    post(server, '/save')
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60 * MINUTES)

    assert not list((tmp_path / 'out').glob('.*.npz'))      # saved: nothing to recover
    assert len(list((tmp_path / 'out').glob('.*.forgotten'))) == 1
    name = next((tmp_path / 'out').glob('*-001.png')).name.removesuffix('-001.png')
    (tmp_path / 'out' / f'.{name}-unsaved.npz').write_bytes(b'damaged')
    process, address = started()
    server = Address(address)
    status, _, body = ask(server, '/recover', {'restore': True})
    assert status == 400 and b'the unsaved edits cannot be read' in body
    assert post(server, '/state')['unsaved_found']          # until the user deletes them
    assert not post(server, '/recover', {'restore': False})['unsaved_found']
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60 * MINUTES)[1] == ''
    assert not list((tmp_path / 'out').glob('.*.npz'))


def test_a_page_goes_on_after_a_restart(started, tmp_path):
    """The next server of the folder has the same address, unless others could have written it."""
    process, address = started()
    file = tmp_path / 'out' / '.address'
    assert file.stat().st_mode & 0o777 == 0o600
    process.kill()
    process.wait()
    process, again = started()
    assert again == address
    process.kill()
    process.wait()
    file.chmod(0o644)
    process, again = started()
    assert Address(again).token != Address(address).token and file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize('text', ['', '{', '[]', '{"port": "1", "token": 1}', '{"port": 1}',
                                  '{"port": 80, "token": "x"}', 'null'])
def test_damaged_addresses_are_ignored(tmp_path, text):
    file = tmp_path / '.address'
    assert http_server.read_address(file) == (0, None)
    file.write_text(text)
    file.chmod(0o600)
    assert http_server.read_address(file) == (0, None)


def test_errors_of_host_port_and_out(started, command, trained, scenes, tmp_path):
    _, address = started()
    port = Address(address).server_address[1]
    label = next((scenes / 'gtFine' / 'val').rglob('*labelIds.png'))
    for words, message in ((('--port', port), f'--port {port}: cannot be served there'),
                           (('--host', '0.0.0.0'), '--host 0.0.0.0: expected a single address'),
                           (('--host', '0'), '--host 0: expected a single address'),
                           (('--host', 'no.such.host.invalid'), 'cannot be served there')):
        code, _, err = command('edit', '--run', trained, '--label', label, '--no-browser',
                               '--out', 'another', *words)
        assert code == 2 and message in err and err.count('\n') == 1
    code, _, err = command('edit', '--run', trained, '--label', label, '--out', tmp_path / 'out')
    assert code == 2 and 'is at work there' in err and '--out' in err


def test_a_run_without_an_encoder(tmp_path):
    """There are no styles; everything else works."""
    run = make_run(CPU, **SMALL, features=False)
    editor = operations.Editor(run, None, operations.State(LABEL, INST, {}))
    with served(editor, tmp_path) as server:
        state = post(server, '/state')
        assert not state['encoder'] and state['objects'][0]['style'] is None
        for path, given in (('/photo', {'data': 'AAAA'}), ('/thumbnail', {'object': 7, 'style': 0}),
                            ('/edit', {'edits': [{'do': 'style', 'object': 7, 'style': 0}]})):
            status, _, body = ask(server, path, given)
            assert status == 400 and b'without --features' in body
        post(server, '/edit', {'edits': [{'do': 'relabel', 'object': 26000, 'label': 28},
                                         {'do': 'like', 'object': 26001, 'other': 26000}]})
        assert len(post(server, '/save')['files']) == 4
    assert_same(editor.state, operations.State(editor.state.label, INST, {}))
