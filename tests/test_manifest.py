"What a scan finds, keeps, and does with what is broken"
import json,os,random,shutil,time,warnings
import numpy as np,pandas as pd,pytest
from pathlib import Path
from prp_fastai.all import *
from conftest import killed,pattern

@pytest.fixture
def mixed(tmp_path):
    "Ten good videos, one short, three broken"
    path = tmp_path/'mixed'; path.mkdir()
    for i in range(10): write_video(path/f'good{i}.mp4', pattern(140 if i<6 else 50, seed=i), threads=1)
    write_video(path/'short.mp4', pattern(9))
    whole = (path/'good0.mp4').read_bytes()
    (path/'cut.mp4').write_bytes(whole[:len(whole)//2])
    (path/'empty.mp4').touch()
    (path/'text.avi').write_text('no video')
    return path

def test_scan_says_what_each_file_is(mixed):
    df = scan_videos(get_video_files(mixed)).set_index('path')
    df.index = [Path(o).name for o in df.index]
    assert (df.loc['good0.mp4'].n_frames,df.loc['good7.mp4'].n_frames)==(140,50)
    assert set(df[df.status=='broken'].index)=={'cut.mp4','empty.mp4','text.avi'}
    assert (df[df.status=='broken'].reason.str.len()>5).all()

def test_dataloaders_leave_out_what_cannot_be_used_and_say_so(mixed, capsys):
    dls = PRPDataLoaders.from_folder(mixed, size=24, bs=2, num_workers=0)
    said = capsys.readouterr().out
    assert '4 of 14 videos are left out: 3 broken, 1 of fewer than 16 frames' in said
    assert 'long enough for rate 1: 10, 2: 10, 4: 6, 8: 6' in said
    assert len(dls.train_ds)+len(dls.valid_ds)==10
    for _ in dls.train: pass

def test_manifest_is_kept_and_stale_rows_are_redone(mixed, tmp_path):
    files,fname = get_video_files(mixed),tmp_path/'m.csv'
    first = scan_videos(files, fname)
    before = fname.stat().st_mtime_ns
    pd.testing.assert_frame_equal(scan_videos(files, fname), first)
    assert fname.stat().st_mtime_ns==before
    write_video(mixed/'text.avi', pattern(30), codec='mpeg4')
    again = scan_videos(files, fname).set_index('path')
    assert again.loc[str(mixed/'text.avi')].status=='ok' and again.loc[str(mixed/'text.avi')].n_frames==30
    assert len(scan_videos(files[:2], fname))==2 and len(read_manifest(fname))==len(files)

class Hanging(VideoReader):
    def __init__(self, path):
        if str(path).endswith('good3.mp4'): time.sleep(60)
        super().__init__(path)

class Crashing(VideoReader):
    def __init__(self, path):
        if path.endswith('good3.mp4'): os._exit(3)
        super().__init__(path)

@pytest.mark.parametrize('reader,says', [(Hanging,'did not come back'), (Crashing,'crashed')])
def test_a_decoder_that_hangs_or_crashes_does_not_stop_the_scan(mixed, monkeypatch, reader, says):
    monkeypatch.setattr('prp_fastai.manifest.VideoReader', reader)
    df = scan_videos(get_video_files(mixed), n_workers=2, timeout=6)
    faulty = df[df.reason.str.contains(says)]
    assert [Path(o).name for o in faulty.path]==['good3.mp4'] and (df.status=='ok').sum()==10

def test_scan_that_is_killed_goes_on(tmp_path):
    path = tmp_path/'many'; path.mkdir()
    for i in range(24): write_video(path/f'{i:02}.mp4', pattern(60, seed=i), threads=1)
    files,undisturbed,fname = get_video_files(path),tmp_path/'undisturbed.csv',tmp_path/'killed.csv'
    took = killed(lambda: scan_videos(files, undisturbed), after=60)
    rng = random.Random(0)
    for _ in range(20):
        if fname.exists(): fname.unlink()
        killed(lambda: scan_videos(files, fname), after=rng.random()*took)
    scan_videos(files, fname)
    assert fname.read_text()==undisturbed.read_text()

def test_a_torn_line_does_not_count(mixed, tmp_path):
    files,fname = get_video_files(mixed),tmp_path/'m.csv'
    rows = [scan_video(o) for o in files[:3]]
    fname.with_suffix('.part').write_text(''.join(json.dumps(o)+'\n' for o in rows[:2])+json.dumps(rows[2])[:40])
    assert len(scan_videos(files, fname))==len(files)
    assert not fname.with_suffix('.part').exists() and len(read_manifest(fname))==len(files)

@pytest.mark.parametrize('workers', [0,2])
def test_a_video_that_breaks_later_is_replaced_and_listed(mixed, capsys, workers):
    dls = PRPDataLoaders.from_folder(mixed, size=32, bs=2, num_workers=workers, valid_pct=.3)
    broken = dls.train_ds.items[1]
    broken.write_bytes(b'gone')
    learn = prp_learner(dls, 'c3d', width=.05, cbs=WatchVideos(max_share=.5))
    with learn.no_bar(): learn.fit(1)
    said = capsys.readouterr().out
    assert '1 of 7 videos could not be read and were replaced' in said and broken.name in said

def test_too_many_of_them_stop_the_run(mixed):
    dls = PRPDataLoaders.from_folder(mixed, size=32, bs=2, num_workers=0, valid_pct=.3)
    for o in dls.train_ds.items[:3]: o.write_bytes(b'gone')
    learn = prp_learner(dls, 'c3d', width=.05, cbs=WatchVideos(max_share=.2))
    with learn.no_bar(), pytest.raises(TooManyBadVideos, match='of 7 videos cannot be read'): learn.fit(1)
    for o in dls.train_ds.items: o.write_bytes(b'gone')
    with pytest.raises(VideoError): dls.train.one_batch()

def mutilate(data, rng):
    "One of: bits flipped, cut off, spliced, zeroed, emptied"
    data = bytearray(data)
    kind = rng.choice(['flip','cut','splice','zero','empty'])
    if kind=='flip':
        for _ in range(rng.choice([1,10,200])): data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind=='cut': del data[rng.randrange(len(data)):]
    elif kind=='splice':
        a,b = sorted(rng.sample(range(len(data)), 2)); del data[a:b]
    elif kind=='zero':
        a = rng.randrange(len(data)); n = min(2000, len(data)-a); data[a:a+n] = bytes(n)
    else: data = b''
    return bytes(data)

def test_a_decoder_that_does_not_come_back_ends_the_run_with_its_name(mixed):
    dls = PRPDataLoaders.from_folder(mixed, size=32, bs=2, num_workers=1)
    item_tfm(dls, PlaybackRate).reader = Hanging
    dl = dls.test_dl([mixed/'good0.mp4', mixed/'good3.mp4'])
    dl.timeout = 4
    with pytest.raises(TimeoutError, match='no batch came in 4 seconds; being read: .*good3.mp4'): next(iter(dl))

def opens(path):
    try: VideoReader(path)
    except VideoError: return False
    return True

def test_mutilated_files(mixed, tmp_path, capsys):
    "What damage leaves readable is read, what it does not is named; good files beside it are untouched: in a scan, in a cache, in an epoch"
    rng,path = random.Random(0),tmp_path/'mutilated'; path.mkdir()
    write_video(path/'a.avi', pattern(140, seed=1), codec='mpeg4', threads=1)
    sources = [(mixed/'good0.mp4').read_bytes(), (path/'a.avi').read_bytes()]
    (path/'a.avi').unlink()
    for i in range(400): (path/f'{i:03}{rng.choice([".mp4",".avi",".mkv"])}').write_bytes(mutilate(rng.choice(sources), rng))
    for i in range(6): shutil.copy(mixed/f'good{i}.mp4', path/f'whole{i}.mp4')
    files = get_video_files(path)
    df = scan_videos(files, timeout=10)
    whole = df.path.str.contains('whole')
    assert len(df)==406 and set(df.status)=={'ok','broken'} and (df[whole].status=='ok').all() and df.n_frames[whole].eq(140).all()
    assert not df.reason.str.contains('did not come back').any() and (df[df.status=='broken'].reason.str.len()>5).all()

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        kept = cache_videos(files, tmp_path/'cache', (27,37), manifest=df, timeout=10)
    assert (kept[whole].cached!='').all() and (kept.cached[df.status=='broken']=='').all()
    told = [o for o in told if 'is not cached' in str(o.message)]
    assert len(told)==((kept.cached=='') & (df.status=='ok')).sum() and not any('did not come back' in str(o.message) for o in told)

    hopeful = df.assign(status='ok', n_frames=140, times='')
    dls = PRPDataLoaders.from_files(files, manifest=hopeful, size=24, bs=4, num_workers=2)
    item_tfm(dls, PlaybackRate).reader = VideoReader
    assert sum(1 for _ in dls.train)==len(dls.train)
    damaged = {str(o) for o in L(dls.train_ds.items)[dls.train.bad.nonzero().flatten().tolist()]}
    assert len(damaged)>40 and not any('whole' in o for o in damaged)
    hopeless = {str(o) for o in dls.train_ds.items if not opens(o)}
    assert hopeless and len(hopeless-damaged)<4, 'only those that the last batch leaves out are not counted'

def test_the_bar_ends_with_the_scan(mixed, monkeypatch):
    def bar(gen, total):
        yield from gen
        ended.append(total)
    ended,files = [],get_video_files(mixed)
    monkeypatch.setattr('prp_fastai.manifest.progress', bar)
    scan_videos(files, n_workers=1)
    assert ended==[len(files)]
