"Counts, balance and the probe before fine-tuning"
import pytest,torch
from prp_fastai.all import *

@pytest.fixture
def df(video_folder): return pd.DataFrame(dict(path=sorted(get_video_files(video_folder)), label=['a']*9+['b']*3, split=['train']*7+['valid']*2+['train']*2+['valid']))

def loaders(df, **kwargs):
    return VideoDataLoaders.from_df(df, fn_col='path', label_col='label', valid_col='split', size=32, bs=4, num_workers=0, **kwargs)

class Seen(Callback):
    "Labels of training batches"
    def before_fit(self): self.labels = []
    def after_batch(self):
        if self.training: self.labels += self.learn.yb[0].tolist()

def fitted(dls, how=None, n=4):
    set_seed(0)
    dls.train.rng.seed(0)
    seen = Seen()
    learn = video_learner(dls, 'c3d', width=.02, cbs=seen)
    if how: assert learn.balance(how) is learn
    with learn.no_bar(), learn.no_logging(): learn.fit(n, 1e-3)
    return learn,seen.labels

def test_classes_are_counted(df):
    counts = class_counts(loaders(df))
    assert counts.loc['a'].tolist()==[7,2,2] and counts.loc['b'].tolist()==[2,1,1]
    several = class_counts(loaders(df.assign(label=['a,b']*2+['b']*10), label_delim=','))
    assert several.loc['a'].tolist()==[2,0,0] and several.loc['b'].tolist()==[9,3,3]

def test_weights_make_classes_count_the_same(df):
    dls = loaders(df)
    w = class_weights(dls)
    assert torch.allclose(w*tensor([7.,2.]), tensor([4.5,4.5]))
    learn,_ = fitted(dls, 'loss', 1)
    x,y = torch.randn(9,2),tensor([0]*7+[1]*2)
    each = torch.nn.functional.cross_entropy(x, y, reduction='none')
    assert torch.isclose(learn.loss_func(x, y), (each[:7].mean()+each[7:].mean())/2)

def test_several_labels_weigh_what_is_there(df):
    dls = loaders(df.assign(label=['a,b']*2+['b']*10), label_delim=',')
    learn = video_learner(dls, 'c3d', width=.02)
    learn.loss_func.thresh = .3
    learn.balance('loss')
    assert torch.allclose(learn.loss_func.func.pos_weight, tensor([3.5,1/9])) and learn.loss_func.thresh==.3
    learn = video_learner(dls, 'c3d', width=.02).balance('sampler')
    with pytest.raises(ValueError, match="balance\\('loss'\\) weighs them"), learn.no_bar(): learn.fit(1)

def test_the_sampler_evens_out_repeats_and_leaves(df):
    dls = loaders(df)
    plain,even = np.mean(fitted(dls, n=12)[1]),np.mean(fitted(dls, 'sampler', 12)[1])
    assert plain<.3 and .35<even<.65
    assert fitted(dls, 'sampler')[1]==fitted(dls, 'sampler')[1]
    assert 'shuffle_fn' not in vars(dls.train) and sorted(dls.train.get_idxs())==list(range(9))

def test_what_cannot_be_balanced_is_refused(df):
    learn = video_learner(loaders(df), 'c3d', width=.02, loss_func=FocalLossFlat())
    with pytest.raises(ValueError, match='FocalLossFlat takes no weights'): learn.balance()
    with pytest.raises(ValueError, match="'loss' or 'sampler'"): learn.balance('both')

def test_a_balanced_classifier_can_be_saved(df, tmp_path):
    learn = video_learner(loaders(df), 'c3d', width=.02).balance('loss')
    loaded = load_model(save_model(learn, tmp_path/'m.safetensors'))
    with learn.no_bar(), loaded.no_bar(): assert torch.equal(learn.predict(df.path[0])[2], loaded.predict(df.path[0])[2])

def test_few_videos_are_said_and_probed(df, capsys, monkeypatch):
    learn = video_learner(loaders(df), 'c3d', width=.05)
    table,said = look_first(learn),capsys.readouterr().out
    assert table.index.tolist()==['pretrained','random'] and table.to_numpy().min()>=0 and table.to_numpy().max()<=1
    assert 'a          7      2     2' in said and '12 videos to train and validate on are few' in said and 'Classes differ in size' in said and 'on the 3 of validation' in said
    monkeypatch.setattr('prp_fastai.few_labels.few_videos', 12)
    assert look_first(learn) is None and 'few' not in capsys.readouterr().out

def test_few_videos_validate_more():
    def df(train, test=0): return pd.DataFrame(dict(split=['train']*train+['test']*test))
    assert [valid_share(df(*o)) for o in ((40,), (199,), (199,500), (200,))]==[.25,.25,.25,800/9537] and valid_share(df(40), .1)==.1
