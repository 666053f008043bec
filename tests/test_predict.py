"Predictions of folders and timelines: order, reasons, resumption, and the same numbers as the feature loop"
import numpy as np,pytest
from fastcore.test import test_eq
from prp_fastai.all import *
from prp_fastai.timeline import clips_in_pass
from test_cli import fork,labelled_folder

@pytest.fixture(scope='module')
def classifier(video_folder, tmp_path_factory):
    "A classifier with random weights, and the videos it knows"
    path = tmp_path_factory.mktemp('predict')
    videos = labelled_folder(path/'videos', video_folder)
    files = get_video_files(videos)
    dls = VideoDataLoaders.from_df(pd.DataFrame(dict(path=files, label=files.map(parent_label))), size=24, bs=4, num_workers=0)
    torch.manual_seed(0)
    return video_learner(dls, 'c3d', width=.05, path=path),files,path

def test_rows_keep_order_and_say_why_there_is_no_answer(classifier, tmp_path):
    learn,files,_ = classifier
    (tmp_path/'broken.mp4').write_text('no video')
    short = write_video(tmp_path/'short.mp4', torch.zeros(3,9,32,32, dtype=torch.uint8))
    asked = [files[3], tmp_path/'gone.mp4', files[0], tmp_path/'broken.mp4', short, files[1]]
    table = learn.predict_videos(asked)
    test_eq(table.path.tolist(), list(map(str, asked)))
    test_eq((table.reason=='').tolist(), [True,False,True,False,False,True])
    assert table.reason[1]=='no such file' and 'too few' in table.reason[4] and table.reason[3]
    assert table.probability.isna().tolist()==[False,True,False,True,True,False]
    p = average_clips(clip_logits(learn, [files[3],files[0],files[1]]))
    np.testing.assert_allclose(table.probability.dropna(), p.max(1).values, atol=1e-4)
    test_eq(table.label[table.reason==''].tolist(), [learn.dls.vocab[i] for i in p.argmax(1).tolist()])

def test_a_stopped_run_resumes_and_another_model_is_refused(classifier, tmp_path, monkeypatch):
    learn,files,_ = classifier
    out = tmp_path/'new/found.csv'
    whole = learn.predict_videos(files)
    learn.predict_videos(files[5:8], out)
    asked = []
    real = VideoReader.__init__
    monkeypatch.setattr(VideoReader, '__init__', lambda self, path, *args: (asked.append(Path(path)), real(self, path, *args))[1])
    table = learn.predict_videos(files, out)
    assert not set(asked) & set(files[5:8]) and table.equals(whole)
    other = video_learner(learn.dls, 'c3d', width=.05)
    with pytest.raises(ValueError, match='another model or other settings'): other.predict_videos(files, out)
    with pytest.raises(ValueError, match='another model or other settings'): learn.predict_videos(files, out, clips=3)
    with pytest.raises(ValueError, match="avg must be"): learn.predict_videos(files, avg='mean')
    (tmp_path/'own.csv').write_text('a,b')
    with pytest.raises(ValueError, match='a table from elsewhere'): learn.predict_videos(files, tmp_path/'own.csv')

def test_the_bar_comes_to_its_end(classifier, tmp_path, monkeypatch):
    "Also where the last videos have no answer"
    learn,files,_ = classifier
    ended = []
    def bar(gen, total):
        yield from gen
        ended.append(total)
    monkeypatch.setattr('prp_fastai.features.progress', bar)
    learn.predict_videos([*files[:3], tmp_path/'gone.mp4'])
    test_eq(ended, [3])

def test_none_of_the_videos_is_there(classifier, tmp_path):
    learn,_,_ = classifier
    table = learn.predict_videos([tmp_path/'gone.mp4', tmp_path/'too.mp4'])
    test_eq(table.reason.tolist(), ['no such file']*2)
    test_eq(len(learn.predict_videos([])), 0)

def test_several_labels(classifier):
    learn,files,_ = classifier
    dls = VideoDataLoaders.from_df(pd.DataFrame(dict(path=files, label=['a','a;b','b']*4)), label_delim=';', size=24, bs=4, num_workers=0)
    table = video_learner(dls, 'c3d', width=.05).predict_videos(files[:2], k=1)
    assert set(table.label)<={'','a','b','a;b'} and (table.top.str.count(';')==0).all()

@pytest.mark.parametrize('n', [7,64,500])
def test_windows_are_those_of_a_plain_read(classifier, n):
    "Whatever the length of the parts"
    learn,files,_ = classifier
    with VideoReader(files[0]) as v:
        starts = window_starts(np.arange(len(v))/25, .37, 16)
        whole = CropVideo(24)((v.frames(range(len(v)), frame_size(24)),), split_idx=1)[0].as_subclass(Tensor)
        clips = list(clips_in_pass(v, [range(i, i+16) for i in starts], 24, n))
    assert len(clips)==len(starts)>3 and all(torch.equal(c, whole[:,s:s+16]) for c,s in zip(clips, starts))

def test_a_timeline_equals_clip_logits_to_the_last_bit(classifier, monkeypatch):
    learn,files,_ = classifier
    table = learn.timeline(files[0], every=.5, features=True)
    with VideoReader(files[0]) as v: starts = window_starts(v.index.times, .5, 16).tolist()
    monkeypatch.setattr('prp_fastai.block.linspace_starts', lambda n, **kwargs: starts)
    p = clip_logits(learn, [files[0]], len(starts), num_workers=0)[0].softmax(-1)
    test_eq(table.probability.tolist(), p.max(1).values.tolist())
    test_eq(table.label.tolist(), [learn.dls.vocab[i] for i in p.argmax(1).tolist()])
    assert np.allclose(table.start, np.asarray(starts)/25) and table.features[0].shape==(num_features(learn.model.encoder),)

def test_times_are_those_of_presentation(classifier, tmp_path):
    learn,files,_ = classifier
    slow = write_video(tmp_path/'slow.mp4', read_frames(files[0], range(60)), fps=10)
    table = learn.timeline(slow, every=1.)
    assert np.allclose(table.start, range(len(table)), atol=.01) and abs(table.end.max()-(table.start.max()+1.6))<.11

def test_too_short_and_unreadable_videos(classifier, tmp_path):
    learn,*_ = classifier
    short = write_video(tmp_path/'short.mp4', torch.zeros(3,9,32,32, dtype=torch.uint8))
    with pytest.raises(VideoError, match='too few for a window of 16'): learn.timeline(short)
    with pytest.raises(ValueError, match='every must be positive'): learn.timeline(short, every=0)
    (tmp_path/'broken.mp4').write_text('no video')
    with pytest.raises(VideoError): learn.timeline(tmp_path/'broken.mp4')

def test_what_decodes_before_an_error_is_predicted(classifier, monkeypatch, capsys):
    learn,files,_ = classifier
    real = VideoReader.in_parts
    def torn(self, n=256, *args):
        parts = real(self, 40, *args)
        yield next(parts)
        raise VideoError(self.path, 'the tail is missing')
    monkeypatch.setattr(VideoReader, 'in_parts', torn)
    table = learn.timeline(files[0], every=.2)
    assert len(table)>2 and table.end.max()<=40/25 and 'the tail is missing' in table.attrs['reason'] and 'the tail is missing' in capsys.readouterr().out

def test_a_video_of_which_nothing_decodes_has_no_timeline(classifier, monkeypatch):
    learn,files,_ = classifier
    def torn(self, *args): raise VideoError(self.path, 'its head is missing')
    monkeypatch.setattr(VideoReader, 'in_parts', torn)
    with pytest.raises(VideoError, match='decoding ended early: its head is missing') as e: learn.timeline(files[0])
    test_eq(Path(e.value.path), files[0])

@pytest.mark.parametrize('n,sizes', [(0,[]), (1,[1]), (2,[2]), (5,[2,2,1])])
@pytest.mark.parametrize('torn', [False,True])
def test_windows_are_predicted_batch_by_batch(n, sizes, torn):
    "Each window once and in order, whether the clips end or break off in a batch or after it"
    seen = []
    def clips():
        for i in range(n): yield np.full((3,2,4,4), i)
        if torn: raise VideoError('v.mp4', 'torn')
    def predict(x):
        seen.append(len(x))
        return [x[:,:1,0,0,0], -x[:,:2,0,0,0]]
    found,error = predict_windows(clips(), predict, 7, bs=2)
    test_eq((seen, bool(error)), (sizes, torn))
    test_eq([o.tolist() for o in found], [[[i] for i in range(n)], [[-i]*2 for i in range(n)]] if n else [])

def windows(labels, p=.7):
    "Windows of two classes; each has probability `p` of its own label"
    probs = [np.array([p,1-p] if o=='a' else [1-p,p]) for o in labels]
    return pd.DataFrame(dict(start=np.arange(len(labels))/2, end=np.arange(len(labels))/2+.6, label=list(labels), probability=p, probs=probs))

def test_events():
    found = events(windows('aaba'), change=0)
    test_eq(found.label.tolist(), ['a','b','a'])
    np.testing.assert_allclose(found[['start','end']], [[0,1.05],[1.05,1.55],[1.55,2.1]])
    test_eq(found.windows.tolist(), [2,1,1])

@pytest.mark.parametrize('seed', range(5))
def test_least_changes_against_all_sequences(seed):
    cost,change = np.random.default_rng(seed).random((6,3)),.3
    def price(path): return sum(cost[i,o] for i,o in enumerate(path))+change*sum(a!=b for a,b in zip(path, path[1:]))
    best = min(itertools.product(range(3), repeat=6), key=price)
    np.testing.assert_allclose(price(least_changes(cost, change)), price(best))

def test_a_price_overrules_single_windows():
    table = windows('aaabaaabbbbb')
    test_eq(events(table, change=0).label.tolist(), list('abab'))
    found = events(table, change=1.)
    test_eq(found.label.tolist(), list('ab'))
    np.testing.assert_allclose(found.probability, [(6*.7+.3)/7, .7])
    test_eq(len(events(table, change=100.)), 1)
    test_eq(len(events(windows('aaabaaabbbbb', 1.))), 4)

def test_prp_predict_from_the_shell(classifier, tmp_path, monkeypatch):
    learn,files,path = classifier
    monkeypatch.chdir(tmp_path)
    save_model(learn, tmp_path/'m.safetensors')
    said = fork('prp-predict', path/'videos', 'm.safetensors', '--timeline', '--clips', 2)
    assert said.splitlines()[-1]=='written: predictions.csv'
    assert len(pd.read_csv('predictions.csv'))==12 and {'path','start','end','label'}<=set(pd.read_csv('predictions_timeline.csv'))
    assert 'is no classifier' in fork('prp-predict', path/'videos', 'sample', ok=False)
