"Datasets as people have them on disk, and lists that must not be believed"
import re,shutil
import pandas as pd,pytest
from pathlib import Path
from prp_fastai.all import *

shared = Path(__file__).resolve().parent.parent.parent/'shared/data'
needs_lists = pytest.mark.skipif(not shared.exists(), reason='the complete official lists are not here (../shared/data)')

def lay_out(to, names, layout):
    "Empty files for `names` (class/name), in a layout"
    for o in names:
        f = to/layout/o
        f.parent.mkdir(parents=True, exist_ok=True)
        f.touch()

@pytest.fixture
def ucf(tmp_path):
    "Two classes, two groups each, names that are patterns to a shell"
    names = [f'{c}/v_{c}_g{g:02}_c{k:02}.avi' for c in ('A[b] & c','D(e);!') for g in (1,2) for k in (1,2)]
    lists = tmp_path/'ucfTrainTestlist'
    lists.mkdir()
    (lists/'classInd.txt').write_text('1 A[b]&c\r\n2 D(e);!\r\n')
    names = [o.replace(' ','') for o in names]
    (lists/'trainlist01.txt').write_text(''.join(f'{o} {1 if o[0]=="A" else 2}\r\n' for o in names if '_g02_' in o))
    (lists/'testlist01.txt').write_text(''.join(f'{o}\r\n' for o in names if '_g01_' in o))
    lay_out(tmp_path, names, 'UCF-101')
    return tmp_path

def test_archives_and_authors_layout_give_the_same(ucf):
    a = read_ucf101(ucf)
    beside = read_ucf101(ucf/'UCF-101')
    (ucf/'UCF-101').rename(ucf/'video'); (ucf/'ucfTrainTestlist').rename(ucf/'split')
    b = read_ucf101(ucf)
    assert a.path.map(lambda o: Path(o).exists()).sum()==0 and b.path.map(lambda o: Path(o).exists()).all()
    assert len(a)==8 and a.equals(beside) and a.drop(columns='path').equals(b.drop(columns='path'))
    assert sorted(set(b.label))==['A[b]&c','D(e);!'] and b.is_test.sum()==4 and set(b.group)=={'v_A[b]&c_g01','v_A[b]&c_g02','v_D(e);!_g01','v_D(e);!_g02'}

@pytest.mark.parametrize('name,pat,new,says', [
    ('trainlist01.txt', r'(D.*g02_c01.avi) 2', r'\1 1', r'v_D\(e\);!_g02_c01.avi has the class number 1, that of D\(e\);! is 2'),
    ('trainlist01.txt', r'(A.*g02_c01.avi) 1', r'\1 7', 'has the class number 7'),
    ('trainlist01.txt', r'A\[b\]&c/', 'Other/', 'is of a class that has no number in classInd.txt'),
    ('testlist01.txt', r'A\[b\]&c/', 'Other/', 'is of a class that has no number in classInd.txt'),
    ('testlist01.txt', r'v_A(.*)_g01_c01', r'v_A\1_g02_c03', r'clips of the group v_A\[b\]&c_g02 to train and to test on'),
    ('testlist01.txt', r'_c02', '_c01', 'lists .*_c01.avi twice'),
    ('testlist01.txt', r'(?s).*', '', 'names no videos to test on'),
    ('trainlist01.txt', r'(?s).*', '', 'names no videos to train on')])
def test_lists_that_contradict_themselves_are_refused_by_name(ucf, name, pat, new, says):
    lst = ucf/'ucfTrainTestlist'/name
    lst.write_text(re.sub(pat, new, lst.read_text()))
    with pytest.raises(ValueError, match=says): read_ucf101(ucf)

def test_without_class_numbers_each_class_has_one(ucf):
    (ucf/'ucfTrainTestlist/classInd.txt').unlink()
    assert len(read_ucf101(ucf))==8
    lst = ucf/'ucfTrainTestlist/trainlist01.txt'
    good = lst.read_text()
    lst.write_text(good.replace('c01.avi 2', 'c01.avi 1'))
    with pytest.raises(ValueError, match='is of a class that has no number'): read_ucf101(ucf)
    lst.write_text('\n'.join(o for o in good.splitlines() if o[0]=='A'))
    with pytest.raises(ValueError, match='testlist01.txt: D.* is of a class that has no number'): read_ucf101(ucf)

def test_missing_videos_are_said_and_an_argument_decides(ucf, capsys):
    gone = ucf/'UCF-101/D(e);!/v_D(e);!_g02_c01.avi'
    gone.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(f'1 of the 8 videos of split 1 are missing, the first is {gone}')): read_ucf101(ucf)
    assert len(read_ucf101(ucf, allow_missing=True))==7
    assert str(gone) in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match='no trainlist02.txt and testlist02.txt'): read_ucf101(ucf, split=2)
    shutil.rmtree(ucf/'UCF-101')
    with pytest.raises(FileNotFoundError, match='folder of videos'): read_ucf101(ucf, allow_missing=True)

@needs_lists
@pytest.mark.parametrize('split,counts', [(1,(9537,3783)), (2,(9586,3734)), (3,(9624,3696))])
def test_official_lists_of_ucf101(tmp_path, split, counts):
    shutil.copytree(shared/'ucf101/split', tmp_path/'ucfTrainTestlist')
    lists = [tmp_path/f'ucfTrainTestlist/{o}list{split:02}.txt' for o in ('train','test')]
    lay_out(tmp_path, [o.split()[0] for f in lists for o in f.read_text().splitlines()], 'UCF-101')
    df = read_ucf101(tmp_path, split)
    assert ((~df.is_test).sum(), df.is_test.sum())==counts and df.label.nunique()==101
    lists[0].write_text('\n'.join(lists[0].read_text().splitlines()[1:]))
    with pytest.raises(ValueError, match=f'has {counts[0]-1} videos to train'): read_ucf101(tmp_path, split)

@needs_lists
@pytest.mark.parametrize('split', [1,2,3])
def test_official_lists_of_hmdb51(tmp_path, split):
    shutil.copytree(shared/'hmdb51/split', tmp_path/'testTrainMulti_7030_splits')
    for f in (shared/'hmdb51/split').iterdir():
        c,_,k = f.stem.rpartition('_test_split')
        if k==str(split): lay_out(tmp_path, [f'{c}/{o.split()[0]}' for o in f.read_text().splitlines()], 'hmdb51_org')
    df = read_hmdb51(tmp_path, split)
    assert ((~df.is_test).sum(), df.is_test.sum())==(3570,1530) and df.label.nunique()==51
    assert (df.groupby('label').is_test.agg(['size','sum'])==[100,30]).all(None)
    assert (df.path.map(lambda o: Path(o).parent.name)==df.label).all()

@needs_lists
def test_videos_that_are_here():
    assert len(read_hmdb51(shared/'hmdb51', allow_missing=True))==6
    df = read_ucf101(shared/'mocap15')
    assert len(df)==1200 and df.is_test.sum()==240 and df.label.nunique()==15

def test_marks_and_names_of_hmdb51(tmp_path):
    (tmp_path/'split').mkdir()
    names = {c: [f'(A)_{c}_x_{c}_f_{k}.avi' if k else f'Film!_{c}_f_0.avi' for k in range(3)] for c in ('climb','climb_stairs')}
    def write(marks): [(tmp_path/f'split/{c}_test_split1.txt').write_text(''.join(f'{o} {m} \n' for o,m in zip(v, marks))) for c,v in names.items()]
    lay_out(tmp_path, [f'{c}/{o}' for c,v in names.items() for o in v], 'video')
    write((1,2,0))
    df = read_hmdb51(tmp_path)
    assert list(zip(df.label, df.is_test))==[('climb_stairs',False),('climb_stairs',True),('climb',False),('climb',True)]
    assert df.group.tolist()==['Film!_climb_stairs','(A)_climb_stairs_x_climb_stairs','Film!_climb','(A)_climb_x_climb']
    write((1,2,3))
    with pytest.raises(ValueError, match='is marked 3'): read_hmdb51(tmp_path)
    write((0,2,1))
    with pytest.raises(ValueError, match='clips of the group'): read_hmdb51(tmp_path)
    write((1,2,0))
    (tmp_path/'split/climb_stairs_test_split1.txt').write_text('Film!_climb_f_0.avi 1\n')
    with pytest.raises(ValueError, match='Film!_climb_f_0.avi is no clip of climb_stairs'): read_hmdb51(tmp_path)

def test_video_data_says_where_to_get_it_and_fetches_when_asked(ucf, tmp_path, monkeypatch, capsys):
    import prp_fastai.external as ext
    for k in (2,3):
        for o in ('train','test'): shutil.copy(ucf/f'ucfTrainTestlist/{o}list01.txt', ucf/f'ucfTrainTestlist/{o}list0{k}.txt')
    served = tmp_path/'served'
    shutil.make_archive(served/'videos', 'zip', ucf, 'UCF-101'); shutil.make_archive(served/'lists', 'zip', ucf, 'ucfTrainTestlist')
    monkeypatch.setitem(ext._sources, 'ucf101', ('the page', f'{served.as_uri()}/', {'videos.zip':'', 'lists.zip':''}, read_ucf101))
    with pytest.raises(FileNotFoundError, match='Unpack videos.zip and lists.zip there, from the page'): video_data('ucf101', tmp_path/'deep/new')
    assert not (tmp_path/'deep/new').exists()
    assert video_data('ucf101', tmp_path/'deep/new', download=True)==tmp_path/'deep/new'
    assert 'split 3 has 4 videos to train and 4 to test on' in capsys.readouterr().out
    with pytest.raises(ValueError, match='there are ucf101, hmdb51'): video_data('ucf10')

def test_one_video_stands_for_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = get_video_files(sample_videos())[0]
    (tmp_path/'Jump').mkdir()
    shutil.copy(source, 'Jump/one.MP4')
    df = list_videos('Jump/one.MP4', labels=True)
    assert (df.path.tolist(),df.label.tolist(),df.split.tolist())==([Path('Jump/one.MP4')],['Jump'],['train'])
    assert list_videos(Path('Jump/one.MP4').absolute()).label.tolist()==['Jump']
    with pytest.raises(FileNotFoundError, match='two.mp4: no such folder or list'): list_videos('Jump/two.mp4')

@pytest.mark.parametrize('data', [b'\x10\0\0\0\0\0\0\0{"a":1}\xff\xfe', np.random.default_rng(0).bytes(5000)])
def test_what_is_no_text_is_no_list(data, tmp_path):
    "An encoder or a picture in the place of a list"
    (tmp_path/'encoder.safetensors').write_bytes(data)
    for f in (read_table,list_videos):
        with pytest.raises(ValueError, match='encoder.safetensors is neither a list nor a table of videos'): f(tmp_path/'encoder.safetensors')
    (tmp_path/'list.txt').write_text('path,label\na.mp4,ä\n', encoding='utf-16')
    assert read_table(tmp_path/'list.txt').values.tolist()==[['a.mp4','ä']]
