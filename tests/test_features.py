"One loop over clips, and the card that every encoder carries"
import inspect,io,pickle
import numpy as np,pandas as pd,pytest,torch
from safetensors.torch import load_file,save_file
from prp_fastai.all import *
from copy import copy,deepcopy
from conftest import pattern

size = 32
fast = dict(num_workers=0)

@pytest.fixture(scope='module')
def files(tmp_path_factory):
    path = tmp_path_factory.mktemp('videos')
    for i in range(8): (path/'ab'[i%2]).mkdir(exist_ok=True); write_video(path/'ab'[i%2]/f'v_{i}.mp4', pattern(32+5*i, 32, 44, seed=i), threads=1)
    return get_video_files(path).sorted()

@pytest.fixture
def learn(files): return prp_learner(PRPDataLoaders.from_files(files[:6], size=size, bs=2, **fast), 'c3d', width=.05)

def table(files): return pd.DataFrame(dict(path=files.map(str), label=files.map(parent_label), is_test=[i%4>1 for i in range(len(files))]))

class Sizes(nn.Module):
    "An encoder, and its copies, that note the clips they are given"
    num_features,given = 3,set()
    def __init__(self, **card): super().__init__(); self.bias,self.card = nn.Parameter(torch.zeros(1)),EncoderCard(card)
    def reset_parameters(self): pass
    def forward(self, x): self.given.add(tuple(x.shape[2:])); return x+self.bias

def test_an_encoder_gets_the_clips_of_its_card(files, learn, tmp_path):
    "Whatever it comes in, and whoever asks; 112 pixels are refused where 32 were trained on"
    fname,df = learn.save_encoder(tmp_path/'e.safetensors'),table(files)
    want = pooled_features(learn, files[:2], clips=2, **fast)
    assert want.shape==(2,num_features(learn.model.encoder))
    for o in (fname, learn.model, learn.model.encoder, deepcopy(learn.model.encoder), get_encoder(fname)):
        np.testing.assert_array_equal(pooled_features(o, files[:2], clips=2, size=size, **fast), pooled_features(o, files[:2], clips=2, **fast))
        np.testing.assert_array_equal(pooled_features(o, files[:2], clips=2, **fast), want)
    for other in (dict(size=112), dict(clip_len=8)):
        for f in (partial(pooled_features, learn, files), partial(probe_table, fname, df), partial(VideoIndex.from_learner, learn.model, files),
                  partial(retrieval_table, learn.model.encoder, files[:6], files[6:])):
            with pytest.raises(ValueError, match='the encoder was trained on clips of (size 32, not 112|clip_len 16, not 8)'): f(**other, **fast)
    for p in (ClipProtocol(), protocols['vcop']):
        with pytest.raises(ValueError, match='size 32, not 112'): each_video(learn.model.encoder, files, p)

@pytest.mark.parametrize('ask', [lambda net, files: probe_table(net, table(files), clips=2, **fast), lambda net, files: pooled_features(net, files, clips=1, **fast),
                                 lambda net, files: VideoIndex.from_learner(net, files, protocol='rspnet', **fast)])
def test_clips_are_of_the_size_of_the_card(files, ask):
    "Also of the random encoder beside it"
    Sizes.given.clear()
    ask(Sizes(size=24, clip_len=8), files)
    assert Sizes.given=={(8,24,24)}

def test_without_a_card_the_arguments_count(files):
    assert pooled_features(c3d(.05), files[:1], clips=1, size=size, **fast).shape==(1,25)
    assert ClipProtocol().for_card({})==ClipProtocol() and ClipProtocol().for_card({}, 8, 56)==ClipProtocol(clip_len=8, size=56)
    assert ClipProtocol().for_card(dict(size=56), clip_len=8)==ClipProtocol(clip_len=8, size=56)
    assert protocol_for('coclr', dict(size=56)).size==56 and protocol_for('coclr').size==128

def test_colours_are_those_of_the_card(files):
    bgr,rgb = (pooled_features(Sizes(size=size, pixels=f'{o} in 0..1'), files[:2], clips=2, **fast) for o in ('BGR','RGB'))
    np.testing.assert_array_equal(bgr[:,::-1], rgb)
    with pytest.raises(ValueError, match="pixels must be one of RGB in 0..1; .*got 'YUV'"): pooled_features(Sizes(size=size, pixels='YUV'), files[:2], **fast)

def test_all_askers_share_the_loop(files):
    "Logits, pooled features and retrieval, against the loop written out"
    net = c3d(.05).eval()
    with torch.no_grad(): plain = torch.stack([net(clips[0]).mean((2,3,4)) for clips,_ in clips_loader(files[:3], 4, size=size, bs=1, **fast)])
    rows = torch.stack([x for _,x in each_video(net, files[:3], ClipProtocol(4, size=size), average=False, **fast)])
    torch.testing.assert_close(rows, plain)
    np.testing.assert_allclose(pooled_features(net, files[:3], 4, size=size, **fast), plain.mean(1), rtol=1e-5)
    index = VideoIndex.from_learner(net, files[:3], protocol='rspnet', size=size, **fast)
    net.card = EncoderCard(size=size)
    np.testing.assert_allclose(video_features(net, files[:3], protocol_for('rspnet', net.card), **fast)[0], index.features)
    vcop = [video_features(net, files[:3], *p, **fast)[0] for p in ([], [protocol_for('vcop', net.card)])]
    np.testing.assert_array_equal(*vcop)

@pytest.mark.parametrize('clip_bs', [1,3,12])
def test_how_many_clips_at_once_changes_nothing(files, clip_bs):
    net = c3d(.05)
    want,got = (torch.stack([x for _,x in each_video(net, files[:4], ClipProtocol(3, size=size), bs=bs, clip_bs=o, **fast)]) for bs,o in ((2,8),(3,clip_bs)))
    torch.testing.assert_close(got, want)

def test_modes_are_given_back_also_after_an_error(files, tmp_path):
    net = c3d(.05).train()
    net.conv2.eval()
    before = [m.training for m in net.modules()]
    list(each_video(net, files[:1], ClipProtocol(1, size=size), **fast))
    assert [m.training for m in net.modules()]==before
    (tmp_path/'broken.mp4').write_bytes(b'no video')
    with pytest.raises(VideoError): list(each_video(net, [files[0], tmp_path/'broken.mp4'], ClipProtocol(1, size=size), bs=1, **fast))
    assert [m.training for m in net.modules()]==before
    with pytest.raises(ValueError, match='no videos'): pooled_features(net, [])

def test_bad_videos_come_as_their_error(files, tmp_path):
    (tmp_path/'broken.mp4').write_bytes(b'no video')
    got = dict(each_video(c3d(.05), [files[0], tmp_path/'broken.mp4', tmp_path/'gone.mp4', files[1]], ClipProtocol(1, size=size), skip_bad=True, **fast))
    assert {k: isinstance(v, VideoError) for k,v in got.items()}=={0:False, 1:True, 2:True, 3:False} and 'no such file' in str(got[2])
    for f in (pooled_features, probe_table): assert 'skip_bad' not in inspect.signature(f).parameters

# The card

def test_a_card_is_there_from_the_start_and_travels(learn, files, tmp_path):
    encoder = learn.model.encoder
    card = encoder.card
    assert card==encoder_card(learn)==card_of(learn.model)==card_of(encoder)
    assert (card['arch'],card['width'],card['size'],card['clip_len'])==('c3d',.05,size,16) and Recipe.from_dict(card)==learn.recipe
    assert card['seen']==sorted(video_ids(learn.dls.train_ds.items))
    for o in (copy(encoder), deepcopy(encoder), pickle.loads(pickle.dumps(encoder)), get_encoder(learn), get_encoder(encoder)): assert o.card==card and type(o.card) is EncoderCard
    buffer = io.BytesIO()
    torch.save(encoder, buffer); buffer.seek(0)
    assert torch.load(buffer, weights_only=False).card==card
    other = c3d(.05)
    other.load_state_dict(encoder.state_dict())
    assert card_of(other)=={} and not any('card' in k for k in encoder.state_dict()), 'a state dict is tensors only'
    encoder.load_state_dict(c3d(.05).state_dict())
    assert encoder.card==card
    loaded = load_encoder(learn.save_encoder(tmp_path/'e.safetensors'))
    assert loaded.card==read_card(tmp_path/'e.safetensors') and card_of(loaded)['seen']==card['seen']
    assert '\n' not in repr(card) and 'c3d of width 0.05' in repr(card) and '32×32' in repr(card) and f'{len(card["seen"])} videos' in repr(card)
    assert len(repr(card))<200 and repr(EncoderCard())=='EncoderCard: nothing is known' and repr(EncoderCard(size=3)) and repr(EncoderCard(arch='a'))

def test_exported_learners_keep_the_card(learn, tmp_path):
    learn.export(tmp_path/'learn.pkl')
    again = load_learner(tmp_path/'learn.pkl')
    assert card_of(again.model)==learn.model.encoder.card
    assert get_encoder(again).card['seen']==learn.model.encoder.card['seen']

def test_what_was_seen_stays_seen(learn, files, tmp_path):
    "Through further pretraining and fine-tuning"
    fname,before = learn.save_encoder(tmp_path/'e.safetensors'),set(learn.model.encoder.card['seen'])
    dls = PRPDataLoaders.from_files(files[2:], size=size, bs=2, **fast)
    further = prp_learner(dls, load_encoder(fname))
    assert set(further.model.encoder.card['seen'])==before|set(video_ids(dls.train_ds.items))
    assert (further.model.encoder.card['arch'],further.model.encoder.card['width'])==('c3d',.05)
    assert load_encoder(further.save_encoder(tmp_path/'f.safetensors')).card['seen']==further.model.encoder.card['seen']
    labelled = VideoDataLoaders.from_df(table(files), test_col='is_test', valid_pct=.25, size=size, bs=2, **fast)
    tuned = video_learner(labelled, encoder=fname)
    assert set(tuned.model.encoder.card['seen'])==before|set(video_ids(labelled.train_ds.items))
    with pytest.raises(ValueError, match='has learned from'): retrieval_table(tuned, files[:4], labelled.train_ds.items[:1], **fast)
    back = load_encoder(tuned.save_encoder(tmp_path/'g.safetensors'))
    assert back.card['seen']==tuned.model.encoder.card['seen']
    assert all(torch.equal(v, tuned.model.encoder.state_dict()[k]) for k,v in back.state_dict().items())
    assert reinitialized(back).card=={**back.card, 'seen':[]}

def test_classifiers_with_random_weights_have_a_card(files, tmp_path):
    dls = VideoDataLoaders.from_df(table(files), test_col='is_test', valid_pct=.25, size=size, bs=2, **fast)
    learn = video_learner(dls, 'r3d', width=.05)
    assert (learn.model.encoder.card['arch'],learn.model.encoder.card['width'],learn.model.encoder.card['size'])==('r3d',.05,size)
    assert 'rates' not in learn.model.encoder.card
    assert load_encoder(learn.save_encoder(tmp_path/'e.safetensors')).card['seen']==learn.model.encoder.card['seen']
    learn.dls = VideoDataLoaders.from_df(table(files), test_col='is_test', valid_pct=.25, size=40, bs=2, **fast)
    assert clip_logits(learn, files[:2], 2).shape==(2,2,2) and learn.model.encoder.card['size']==40, 'larger clips later in the training'

def test_other_clips_are_refused_by_a_classifier_too(learn, files):
    dls = VideoDataLoaders.from_df(table(files), test_col='is_test', valid_pct=.25, size=40, bs=2, **fast)
    for kw in (dict(encoder=learn), dict(encoder=learn.model.encoder), dict(arch=learn.model.encoder)):
        with pytest.raises(ValueError, match='size 32, not 40'): video_learner(dls, **kw)

# One door

def test_one_door(learn, tmp_path):
    fname,full = learn.save_encoder(tmp_path/'e.safetensors'),PRPModel('r3d')
    theirs = to_authors(full)
    torch.save(theirs, tmp_path/'authors.pth.tar')
    for o in (learn, learn.model, learn.model.encoder, fname, str(fname)):
        net = get_encoder(o)
        assert all(torch.equal(v, learn.model.encoder.state_dict()[k]) for k,v in net.state_dict().items()) and net.card['size']==size
        assert net is not learn.model.encoder and encoder_and_card(o)[1]==net.card
    for o in (theirs, tmp_path/'authors.pth.tar', str(tmp_path/'authors.pth.tar')):
        net = get_encoder(o, 'r3d')
        assert all(torch.equal(v, full.encoder.state_dict()[k]) for k,v in net.state_dict().items()) and net.card['size']==112
    assert type(get_encoder('r3d')) is R3D and card_of(get_encoder('r3d'))=={}
    assert card_of(nn.DataParallel(learn.model))==learn.model.encoder.card
    with pytest.raises(FileNotFoundError, match='c3dd is neither a file nor one of c3d.*; `foreign_encoder` makes others'): get_encoder('c3dd')
    own = c3d(.05)
    assert get_encoder(fname, own) is not own and not torch.equal(own.conv1[0].weight, learn.model.encoder.conv1[0].weight), 'a module that a file is loaded into stays as it is'

def test_files_without_a_card_are_refused(tmp_path):
    save_file(c3d(.05).state_dict(), tmp_path/'mute.safetensors')
    with pytest.raises(ValueError, match='does not say what encoder'): get_encoder(tmp_path/'mute.safetensors')
