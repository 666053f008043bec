"Folders, tables and lists as people have them: one rule for Python and the shell"
import json,os,shutil
import pandas as pd,pytest,torch
from pathlib import Path
from prp_fastai.all import *
from conftest import pattern

small = dict(size=24, bs=2, num_workers=0)

@pytest.fixture(scope='module')
def clip(tmp_path_factory): return write_video(tmp_path_factory.mktemp('clip')/'a.mp4', pattern(40, 32, 44), threads=1)

@pytest.fixture
def put(tmp_path, clip):
    "Put the video to each of some names"
    def _put(*names):
        for o in names:
            (tmp_path/o).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, tmp_path/o)
        return tmp_path
    return _put

layouts = [['train/{}/{}.mp4','val/{}/{}.mp4','test/{}/{}.mp4'], ['Train/{}/{}.mp4','Valid/{}/{}.mp4','Test/{}/{}.mp4'],
           ['data/TRAINING/{}/{}.mp4','data/validation/{}/{}.mp4','data/Testing/{}/{}.mp4'], ['{}/train/{}.mp4','{}/Val/{}.mp4','{}/test/{}.mp4']]

@pytest.mark.parametrize('layout', layouts)
def test_folders_say_what_videos_are_for(put, capsys, layout):
    path = put(*(o.format(c, f'{i}{k}') for k,o in enumerate(layout) for c in 'ab' for i in range(2)))
    def told(o): return o.stem[-1]
    df = folder_videos(path)
    assert df.groupby('split').path.apply(lambda o: set(map(told, o))).to_dict()=={'train':{'0'}, 'valid':{'1'}, 'test':{'2'}}
    assert sorted(set(df.label))==['a','b']
    assert '4 train, 4 valid, 4 test, from folders' in capsys.readouterr().out
    for make in (VideoDataLoaders.from_folder, partial(PRPDataLoaders.from_folder, rates=(1,2))):
        dls = make(path, **small)
        assert [{told(o) for o in ds.items} for ds in (dls.train_ds,dls.valid_ds)]==[{'0'},{'1'}]
        assert '4 train, 4 valid, 4 test, from folders' in capsys.readouterr().out
    assert {told(o) for o in VideoDataLoaders.from_folder(path, **small).test_df.path}=={'2'}
    df = find_labelled(str(path))
    assert {told(Path(o)) for o in df.path[df.is_test]}=={'2'} and {told(Path(o)) for o in df.path[df.split=='valid']}=={'1'} and sorted(set(df.label))==['a','b']
    assert len(find_videos(str(path)))==12

def test_without_a_test_folder_validation_is_tested_on(put):
    df = find_labelled(str(put('train/a/0.mp4','train/b/0.mp4','VAL/a/1.mp4','VAL/b/1.mp4')))
    assert df.is_test.tolist()==[Path(o).stem=='1' for o in df.path]

def test_no_video_is_on_both_sides(put):
    path = put(*(f'{i}.mp4' for i in range(4)))
    (path/'valid.txt').write_text('3.mp4')
    with pytest.raises(ValueError, match='1 videos are to train and to validate on, the first is .*3.mp4'): prp_pretrain(str(path), str(path/'run'), valid=str(path/'valid.txt'))

def test_commands_keep_apart_what_folders_keep_apart(put, tmp_path, capsys):
    path = put(*(f'{o}/{c}/{i}{k}.mp4' for k,o in enumerate(('train','val','test')) for c in 'ab' for i in range(3)))
    learn = prp_pretrain(str(path), str(tmp_path/'run'), width=.02, size=24, rates='1,2', epochs=1, bs=2, num_workers=0)
    said = capsys.readouterr().out
    assert '6 train, 6 valid, 6 test, from folders' in said and '6 videos to train on, 6 to validate on' in said
    assert {o.stem[-1] for o in learn.dls.train_ds.items}=={'0'} and {o.stem[-1] for o in learn.dls.valid_ds.items}=={'1'}
    small = dict(size=24, num_workers=0, bs=2)
    prp_retrieve(str(path), str(tmp_path/'run/encoder.safetensors'), str(tmp_path/'found'), allow_seen=True, **small)
    how = json.loads((tmp_path/'found/settings.json').read_text())['settings']
    assert (how['gallery_videos'],how['query_videos'])==(6,6) and '6 videos to validate on are left out' in capsys.readouterr().out
    prp_probe(str(path), str(tmp_path/'run/encoder.safetensors'), str(tmp_path/'probed'), clips=1, allow_seen=True, **small)
    assert '6 videos to validate on are left out' in capsys.readouterr().out
    prp_finetune(str(path), str(tmp_path/'tuned'), arch='c3d', width=.02, epochs=1, clips=1, **small)
    assert '6 videos to train on, 6 to validate on, 6 to test on' in capsys.readouterr().out

def test_classes_may_be_called_as_splits_are(put):
    "A class `train` beside `car` is a class; folders to train and test on beside others are refused"
    path = put('train/0.mp4','car/0.mp4','bus/0.mp4')
    assert folder_videos(path).split.eq('train').all() and sorted(folder_videos(path).label)==['bus','car','train']
    put('test/0.mp4')
    with pytest.raises(ValueError, match='and also others: bus, car'): folder_videos(path)
    with pytest.raises(ValueError, match='and also others'): find_labelled(str(path))

def test_videos_of_no_class_are_named(put):
    path = put('train/0.mp4','val/a/0.mp4')
    with pytest.raises(ValueError, match='0.mp4 is in no folder of a class'): VideoDataLoaders.from_folder(path, **small)
    with pytest.raises(ValueError, match='0.mp4 is in no folder of a class'): find_labelled(str(path))
    assert len(PRPDataLoaders.from_folder(put('train/1.mp4'), rates=(1,2), **small).valid_ds)==1

flags = [(True,False,None), (1,0,float('nan')), ('1','0',''), ('yes','no',' '), ('True','FALSE',None), ('valid','train',''), ('Val','TRAIN',None), (1.,0.,float('nan'))]

@pytest.mark.parametrize('yes,no,blank', flags)
def test_flags(put, yes, no, blank):
    path = put(*(f'{i}.mp4' for i in range(8)))
    df = pd.DataFrame(dict(path=[f'{i}.mp4' for i in range(8)], label=list('abababab'), held=pd.Series([no,yes,yes,blank,no,blank,no,no], dtype=object)))
    for dls in (VideoDataLoaders.from_df(df, path, valid_col='held', **small), PRPDataLoaders.from_df(df, path, valid_col='held', rates=(1,2), **small)):
        assert [o.stem for o in dls.valid_ds.items]==['1','2'] and len(dls.train_ds)==6
    df.to_csv(path/'labels.csv', index=False)
    assert [o.stem for o in VideoDataLoaders.from_csv(path, valid_col='held', **small).valid_ds.items]==['1','2']
    test = VideoDataLoaders.from_df(df.assign(held=df.held.replace({'valid':'test','Val':'Test'})), path, test_col='held', **small)
    assert [o.stem for o in test.test_df.path]==['1','2']

def test_a_column_of_splits(put, capsys):
    path = put(*(f'{i}.mp4' for i in range(8)))
    df = pd.DataFrame(dict(path=[f'{i}.mp4' for i in range(8)], label=list('abababab'), split=['train']*4+['Val']*2+['test']*2))
    dls = VideoDataLoaders.from_df(df, path, valid_col='split', **small)
    said = capsys.readouterr().out
    assert (len(dls.train_ds),len(dls.valid_ds),len(dls.test_df))==(4,2,2) and '4 train, 2 valid, 2 test, from column split' in said and 'validate' not in said
    prp = PRPDataLoaders.from_df(df, path, valid_col='split', rates=(1,2), **small)
    assert (len(prp.train_ds),len(prp.valid_ds))==(4,2)
    dls = VideoDataLoaders.from_df(df.assign(split=['train']*6+['test']*2), path, valid_col='split', valid_pct=.4, **small)
    assert (len(dls.train_ds),len(dls.valid_ds),len(dls.test_df))==(4,2,2) and '2 of 6 training videos validate' in capsys.readouterr().out
    df.to_csv(path/'t.csv', index=False)
    found = find_labelled(str(path/'t.csv'))
    assert found.split.tolist()==['train']*4+['valid']*2+['test']*2 and found.is_test.sum()==2

@pytest.mark.parametrize('make', [VideoDataLoaders, PRPDataLoaders])
@pytest.mark.parametrize('bad', ['maybe','2',2,'trian'])
def test_other_flags_are_refused_by_value_and_row(put, make, bad):
    path = put('0.mp4','1.mp4','2.mp4','3.mp4')
    df = pd.DataFrame(dict(path=[f'{i}.mp4' for i in range(4)], label=list('abab'), held=pd.Series([0,1,bad,0], dtype=object)))
    with pytest.raises(ValueError, match=f'row 2: {bad!r} in column held'): make.from_df(df, path, valid_col='held', **small)
    df.to_csv(path/'labels.csv', index=False)
    with pytest.raises(ValueError, match=f"labels.csv, row 4: '{bad}' in column held"): make.from_csv(path, valid_col='held', **small)

def rows_of(*rows, path): return VideoDataLoaders.from_df(pd.DataFrame(rows, columns=['path','label','valid']), path, valid_col='valid', **small)

def test_rows_that_contradict_each_other(put, capsys):
    path = put('0.mp4','1.mp4','2.mp4','3.mp4')
    good = [('0.mp4','a',0), ('1.mp4','b',0), ('2.mp4','a',1), ('3.mp4',' b ',0)]
    assert rows_of(*good, path=path).vocab==['a','b']
    assert len(rows_of(*good, ('./0.mp4','a',0), path=path).train_ds)==3 and '1 rows repeat a video and are dropped: row 4' in capsys.readouterr().out
    with pytest.raises(ValueError, match="row 4: .*0.mp4 has the label 'b', in row 0 it is 'a'"): rows_of(*good, ('./0.mp4','b',0), path=path)
    with pytest.raises(ValueError, match="row 4: .*0.mp4 has the split 'valid', in row 0 it is 'train'"): rows_of(*good, ('0.mp4','a',1), path=path)
    for blank in ('', '  ', None, float('nan')):
        with pytest.raises(ValueError, match='row 1: .*1.mp4 has no label'): rows_of(good[0], ('1.mp4',blank,0), *good[2:], path=path)
    with pytest.raises(ValueError, match='row 1 has no path'): rows_of(good[0], ('','b',0), *good[2:], path=path)
    df = pd.DataFrame(good, columns=['path','label','valid'])
    with pytest.raises(ValueError, match="no column 'held', it has path, label, valid"): VideoDataLoaders.from_df(df, path, valid_col='held', **small)
    with pytest.raises(ValueError, match='row 2 is to validate on and to test on'): VideoDataLoaders.from_df(df.assign(t=[0,0,1,0]), path, valid_col='valid', test_col='t', **small)
    with pytest.raises(FileNotFoundError, match='none of the 4 videos is there, the first is .*0.mp4, row 0'): rows_of(*good, path=path/'elsewhere')

def test_labels_of_two_types_are_one(put):
    path = put('0.mp4','1.mp4','2.mp4')
    df = pd.DataFrame(dict(path=['0.mp4','1.mp4','2.mp4'], label=pd.Series([1,'1','x'], dtype=object)))
    assert video_rows(df, path, label_col=1).label.tolist()==['1','1','x']

forms = {
    'comma':      ('path,label\n{0},run\n{1},sit\n', {}), 'semicolon': ('path;label\n{0};run\n{1};sit\n', {}), 'tab': ('path\tlabel\n{0}\trun\n{1}\tsit\n', {}),
    'no header':  ('{0},run\n{1},sit\n', {}), 'no header, semicolon': ('{0};run\n{1};sit\n', {}), 'other header': ('clip no;what\n{0};run\n{1};sit\n', {}),
    'blanks':     ('{0} run\n{1} sit\n', {}), 'blanks and header': ('path label\n{0} run\n{1} sit', {}), 'frames': ('path;label;frames\n{0};run;40\n{1};sit;40\n', {}),
    'CRLF':       ('path,label\r\n{0},run\r\n\r\n{1},sit\r\n', {}), 'CR': ('path,label\r{0},run\r{1},sit', {}), 'quotes': ('"path","label"\n"{0}","run"\n"{1}","sit"\n', {}),
    'blank ends': ('path, label\n{0}, run\n{1}, sit \n', {}), 'pipe': ('{0}|run\n{1}|sit\n', dict(delimiter='|')), 'told': ('{0},run\n{1},sit\n', dict(header=None)),
    'second row': ('my videos,\npath,label\n{0},run\n{1},sit\n', dict(header=1, delimiter=','))}

@pytest.mark.parametrize('encoding', ['utf-8','utf-8-sig','latin-1','utf-16'])
@pytest.mark.parametrize('form', forms)
@pytest.mark.parametrize('suffix', [True,False])
@pytest.mark.parametrize('names', [('a/v_ä.mp4','b/w.mp4'), ('a/v 1 (2).mp4','b/w [x] é.mp4'), ('a, c/v;1.mp4', 'b/w.mp4')])
def test_tables(put, form, encoding, suffix, names):
    text,kwargs = forms[form]
    if not suffix and form in ('blanks','blanks and header','other header'): return
    path = put(*names)
    def named(o): return f'"{o}"' if re.search('[,;]', o) and form not in ('quotes','blanks','blanks and header') else o
    text = text.format(*(named(o if suffix else o.removesuffix('.mp4')) for o in names))
    (path/'t.txt').write_bytes(text.encode(encoding))
    df = list_videos(path/'t.txt', labels=True, **kwargs)
    assert df.path.tolist()==[path/o for o in names] and df.label.tolist()==['run','sit']
    df = read_table(path/'t.txt', **kwargs)
    assert video_rows(df, path, 0, 1).label.tolist()==['run','sit']

@pytest.mark.parametrize('text,labels', [('0.mp4 3\n1.mp4 12\n', [3,12]), ('0.mp4 40 3\n1.mp4 40 12\n', [3,12]), ('0 40 3\n1 40 12\n', [3,12]), ('0,40,3\n1,40,12\n', [3,12]), ('0.mp4,3\n1.mp4,12\n', [3,12]),
                                         ('path,label\n0.mp4,03\n1.mp4,12\n', ['03','12'])])
def test_lists_of_numbers(put, text, labels):
    path = put('0.mp4','1.mp4')
    (path/'l.csv').write_text(text)
    assert list_videos(path/'l.csv', labels=True).label.tolist()==labels and read_list(path/'l.csv')==[path/'0.mp4',path/'1.mp4']
    assert find_videos(str(path/'l.csv'))==[path/'0.mp4',path/'1.mp4']

def test_tables_make_dataloaders(put):
    path = put(*(f'{i}.mp4' for i in range(6)))
    (path/'t.csv').write_text(''.join(f'{i};{"ab"[i%2]}\n' for i in range(6)))
    dls = VideoDataLoaders.from_csv(path, 't.csv', **small)
    assert len(dls.train_ds)+len(dls.valid_ds)==6 and dls.vocab==['a','b']
    dls = PRPDataLoaders.from_csv(path, 't.csv', rates=(1,2), header=None, delimiter=';', **small)
    assert len(dls.train_ds)+len(dls.valid_ds)==6
    assert find_labelled(str(path/'t.csv')).label.tolist()==list('ababab')

@pytest.mark.parametrize('text,says', [('path,label\n0.mp4,a\n1.mp4,b,c\n', 't.csv, row 3 has 3 cells, not 2'), ('path,label\n0.mp4,a\n1.mp4,\n', 't.csv, row 3: .*1.mp4 has no label'),
    ('path,label\n0.mp4,a\n,b\n', 't.csv, row 3 has no path'), ('path,label\n0.mp4,a\n\n2.mp4,b\n', 't.csv: 1 of 2 videos are missing, the first is .*2.mp4, row 4'), ('\n', 't.csv names no videos'),
    ('path,label\n0.mp4,a\n0.mp4,b\n', "t.csv, row 3: .*0.mp4 has the label 'b', in row 2 it is 'a'"), ('path\n0.mp4\n', 'needs columns path and label'), ('path,label,split\n0.mp4,a,x\n', "t.csv, row 2: 'x' in column split"),
    ('0,a\n1,b\ntwo,c\n', 't.csv, row 3: two may be two.avi or two.mp4')])
def test_refusals_name_file_and_row(put, text, says):
    path = put('0.mp4','1.mp4','two.mp4','two.avi')
    (path/'t.csv').write_text(text)
    with pytest.raises((ValueError,FileNotFoundError), match=says): find_labelled(str(path/'t.csv'))

def test_missing_videos_of_a_table_may_be_left_out(put, capsys):
    path = put('0.mp4','1.mp4')
    (path/'t.csv').write_text('path,label\n0.mp4,a\n1.mp4,b\n2.mp4,b\n')
    assert len(find_labelled(str(path/'t.csv'), allow_missing=True))==2 and '2.mp4, row 4' in capsys.readouterr().out

def test_several_labels(put):
    path = put(*(f'{i}.mp4' for i in range(6)))
    (path/'t.csv').write_text('path,label\n'+''.join(f'{i}.mp4,{o}\n' for i,o in enumerate(['a|b',' a ','b| c','','c|a','b'])))
    dls = VideoDataLoaders.from_csv(path, 't.csv', label_delim='|', **small)
    assert dls.vocab==['a','b','c']
    learn = video_learner(dls, 'c3d', width=.05)
    x,y = dls.one_batch()
    assert y.shape==(2,3) and set(y.unique().tolist())<={0.,1.}
    dl = dls.test_dl([path/'0.mp4',path/'3.mp4'], with_labels=True)
    assert dl.one_batch()[1].tolist()==[[1,1,0],[0,0,0]]
    with learn.no_bar(): learn.fit(1)
    assert np.isfinite(learn.recorder.values[-1]).all() and 0<=learn.get_preds()[0].min() and learn.get_preds()[0].max()<=1
    with learn.no_bar(): names,chosen,probs = learn.predict(str(path/'0.mp4'))
    assert chosen.shape==probs.shape==(3,) and set(names)<={'a','b','c'}
    dls.show_batch(max_n=2)
    with pytest.raises(ValueError, match='one label for each video'): recognition_accuracy(learn)

def test_links_are_followed_to_no_folder_twice(put, tmp_path_factory, capsys):
    path = put('a/0.mp4','b/1.mp4')
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    shutil.copy(path/'a/0.mp4', elsewhere/'2.mp4')
    (path/'a/up').symlink_to(path); (path/'b/self').symlink_to('.'); (path/'aa').symlink_to(path/'b'); (path/'c').symlink_to(elsewhere); (path/'a/3.mp4').symlink_to(elsewhere/'2.mp4')
    (path/'a/gone.mp4').symlink_to('nowhere.mp4'); (path/'b/off').symlink_to('nowhere')
    assert get_video_files(path)==[path/o for o in ('a/0.mp4','a/3.mp4','b/1.mp4','c/2.mp4')]
    assert f'1 names lead to no file and are skipped: {path}/a/gone.mp4' in capsys.readouterr().out
    assert get_video_files(path/'a', recurse=False)==[path/'a/0.mp4',path/'a/3.mp4']

def test_what_is_no_video_file_is_passed_over(put):
    path = put('0.mp4','.hidden/1.mp4','._0.mp4')
    (path/'folder.mp4').mkdir(); os.mkfifo(path/'pipe.mp4')
    assert get_video_files(path)==[path/'0.mp4']

def test_names_that_are_no_text(put, capsys):
    path = put('a/0.mp4')
    name = os.fsdecode(b'caf\xe9.mp4')
    try: shutil.copy(path/'a/0.mp4', path/name)
    except OSError: pytest.skip('this file system has text for names')
    (path/os.fsdecode(b'gone\xe9.mp4')).symlink_to('nowhere')
    assert path/name in get_video_files(path) and len(get_video_files(path))==2
    assert 'gone\ufffd.mp4' in capsys.readouterr().out
    (path/'l.txt').write_bytes(b'caf\xe9.mp4 1\n')
    assert read_list(path/'l.txt')==[path/name]
    dl = VideoDL([path/name,path/'a/0.mp4'], after_item=lambda o: VideoReader(o).info.duration, bs=2, num_workers=0)
    (path/name).write_bytes(b'')
    assert dl.one_batch().isnan().tolist()==[True,False] and 'caf\ufffd.mp4' in capsys.readouterr().out

@pytest.mark.parametrize('suffix', '.asf .3g2 .mxf .y4m .gif .ogg .hevc .h264 .m2t .mod .insv .MOV .m2ts .WEBM'.split())
def test_suffixes_of_videos(put, suffix): assert len(get_video_files(put(f'0{suffix}')))==1

def test_suffixes_that_are_none_and_others_by_choice(put):
    path = put(*(f'{i}{o}' for i,o in enumerate(('.mng','.pyv','.s11','.jpg','.txt','.mp3'))))
    with pytest.raises(FileNotFoundError, match='no video files under'): get_video_files(path)
    for o in ('.pyv','pyv',['.PYV']): assert get_video_files(path, extensions=o)==[path/'1.pyv']
    put(*(f'{c}/{i}.dat' for c in 'ab' for i in range(2)))
    assert len(find_videos(str(path), extensions='.dat'))==len(find_labelled(str(path), extensions='.dat'))==len(folder_videos(path, '.dat'))==4
    dls = VideoDataLoaders.from_folder(path, extensions='.dat', valid_pct=.5, **small)
    assert len(dls.train_ds)+len(dls.valid_ds)==4 and len(PRPDataLoaders.from_folder(path, extensions=['.dat'], rates=(1,2), valid_pct=.5, **small).train_ds)==2

def test_the_page_has_every_suffix():
    page = (Path(__file__).resolve().parent.parent/'nbs/02_external.ipynb').read_text()
    table = set(re.findall(r'\.\w[\w-]*', ' '.join(re.findall(r'^\s*"\| [^|`]* \| `([^`]*)` \|', page, re.M))))
    assert table==video_extensions
