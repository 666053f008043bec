"Encoders of others: shapes, places, gradients, weights by name, pixels, files, kept maps; nothing is fetched"
import socket,time
from urllib.error import URLError
import pytest
from fastcore.test import test_close,test_eq
from torchvision.models.video.mvit import MSBlockConfig,MViT
from torchvision.models.video import SwinTransformer3d
from prp_fastai.all import *
from torchvision.models import get_model

@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs): raise URLError('no network in tests')
    monkeypatch.setattr(socket.socket, 'connect', refuse)

def labelled(folder):
    df = pd.DataFrame(dict(path=list(get_video_files(folder)), label=['a','b']*6))
    return VideoDataLoaders.from_df(df, label_col='label', fn_col='path', valid_pct=.3, size=24, bs=2, num_workers=0)

def hf_config(kind):
    from transformers import AutoConfig
    size = dict(videomae=dict(image_size=32, num_frames=4), vjepa2=dict(crop_size=32, frames_per_clip=4))[kind]
    return AutoConfig.for_model(kind, patch_size=8, tubelet_size=2, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        pred_hidden_size=24, pred_num_attention_heads=2, pred_num_hidden_layers=1, **size)

def mvit():
    blocks = [MSBlockConfig(1, 8, 8, [], [], [], []), MSBlockConfig(1, 8, 8, [3,3,3], [3,3,3], [1,2,2], [1,2,2])]
    return Foreign(MViTMap(MViT((32,32), 4, blocks, residual_pool=False, residual_with_cls_embed=False, rel_pos_embed=False, proj_after_attn=False)), 8, 32, 4)

def swin(): return Foreign(SwinMap(SwinTransformer3d([2,4,4], 8, [1,1], [2,2], [2,2,2], num_classes=3)), 16, 32, 4)

makers = dict(mvit=mvit, swin=swin, r3d_18=lambda: foreign_encoder('torchvision/r3d_18'), s3d=lambda: foreign_encoder('torchvision/s3d'),
    resnet18=lambda: foreign_encoder('timm/resnet18', size=32, nf=8), vit=lambda: foreign_encoder('timm/vit_tiny_patch16_224', size=32, nf=8),
    **{o: (lambda o=o: foreign_encoder('hf/anyone/anything', config=hf_config(o))) for o in ('videomae','vjepa2')})
shapes = dict(mvit=(8,2,4,4), swin=(16,2,4,4), r3d_18=(512,2,7,7), s3d=(1024,2,7,7), resnet18=(8,4,1,1), vit=(8,4,2,2), videomae=(24,2,4,4), vjepa2=(24,2,4,4))

@pytest.mark.parametrize('name', makers)
def test_shape_and_gradients_where_something_can_be_trained(name):
    net = makers[name]().train()
    x = torch.rand(2, 3, 16 if name in ('r3d_18','s3d') else 4, net.size, net.size)
    out = net(x)
    test_eq(out.shape, (2, *shapes[name]))
    test_eq(net.num_features, out.shape[1])
    out.square().mean().backward()
    still = {k for k,p in net.named_parameters() if p.grad is None}
    if name in ('resnet18','vit'):
        test_eq(still, {k for k,_ in net.named_parameters() if k.startswith('net.image')})
        assert not net.net.image.training and net.net.temporal.training
    else: assert not {o for o in still if 'predictor' not in o and 'class_token' not in o}

@pytest.mark.parametrize('name', ['mvit','swin','videomae','vjepa2','resnet18','vit'])
def test_what_changes_in_a_clip_changes_most_at_its_place(name):
    set_seed(1)
    net,x = makers[name]().eval(),torch.rand(1, 3, 4, 32, 32)
    t,h,w = shapes[name][1:]
    other = x.clone()
    other[:,:,2:,:32//h,32-32//w:] += 1
    with torch.no_grad(): change = (net.net(other)-net.net(x)).abs().sum(1)[0]
    at = np.unravel_index(change.argmax(), change.shape)
    assert at[0]>=t//2 and at[1:]==(0,w-1)

@pytest.mark.parametrize('name', ['r3d_18','mc3_18','r2plus1d_18','s3d','mvit_v2_s','swin3d_t'])
def test_weights_load_by_name_and_others_are_refused(name, tmp_path):
    state = get_model(name).state_dict()
    torch.save(state, tmp_path/'published.pth')
    for weights in (state, tmp_path/'published.pth', str(tmp_path/'published.pth')):
        net = foreign_encoder(f'torchvision/{name}', weights)
        own = list(net.net.state_dict().values())
        kept = [v for k,v in state.items() if not k.startswith(('fc','head','classifier'))]
        assert len(own)==len(kept) and all(a.equal(b) for a,b in zip(own, kept))
    state.popitem()
    with pytest.raises(ValueError, match='1 tensors differ'): foreign_encoder(f'torchvision/{name}', state)

def test_weights_of_timm_and_of_hugging_face_come_from_files(tmp_path):
    import timm
    from transformers import AutoModel,VideoMAEImageProcessor
    state = timm.create_model('resnet18').state_dict()
    torch.save(state, tmp_path/'resnet18.pth')
    net = foreign_encoder('timm/resnet18', tmp_path/'resnet18.pth', size=32)
    test_eq(net.net.image.state_dict()['layer4.1.conv2.weight'], state['layer4.1.conv2.weight'])
    published = AutoModel.from_config(hf_config('videomae'))
    published.save_pretrained(tmp_path/'mae')
    with pytest.raises(OSError): foreign_encoder('hf/mae', tmp_path/'mae')
    VideoMAEImageProcessor(image_mean=[.1,.2,.3], image_std=[.4,.5,.6]).save_pretrained(tmp_path/'mae')
    net = foreign_encoder('hf/mae', tmp_path/'mae')
    test_close(net.mean.flatten(), tensor([.1,.2,.3])); test_close(net.std.flatten(), tensor([.4,.5,.6]))
    test_eq(net.net.net.state_dict()['encoder.layer.0.output.dense.weight'], published.state_dict()['encoder.layer.0.output.dense.weight'])

def test_nothing_is_fetched_unless_asked_and_the_error_says_what_to_pass(monkeypatch, tmp_path):
    monkeypatch.setattr(time, 'sleep', lambda s: None) # the hub's library would try again and again
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    foreign_encoder('torchvision/r3d_18')
    with pytest.raises(FileNotFoundError, match='pass the file from https.*r3d_18.*as weights'): foreign_encoder('torchvision/r3d_18', 'KINETICS400_V1')
    with pytest.raises(ValueError, match='KINETICS400_V1.*or a state dict'): foreign_encoder('torchvision/r3d_18', 'IMAGENET')
    with pytest.raises(FileNotFoundError, match='pass its folder as weights'): foreign_encoder('hf/nobody/videomae')
    with pytest.raises(FileNotFoundError, match='pass its folder as weights'): foreign_encoder('hf/nobody/videomae', 'published')
    with pytest.raises(FileNotFoundError, match='pass their file as weights'): foreign_encoder('timm/resnet18', 'published')

def test_pixels_that_differ_are_refused(video_folder, tmp_path):
    net = foreign_encoder('timm/resnet18', size=32, nf=8)
    files = get_video_files(video_folder)
    with pytest.raises(ValueError, match='trained on clips of size 32, not 24'): pooled_features(net, files, size=24, num_workers=0)
    with pytest.raises(ValueError, match='takes clips of any number of frames of 32x32'): net(torch.rand(1, 3, 4, 24, 24))
    dls = labelled(video_folder)
    with pytest.raises(ValueError, match='trained on clips of size 32, not 24'): video_learner(dls, net)
    mae = foreign_encoder('hf/a/b', config=hf_config('videomae'))
    with pytest.raises(ValueError, match='clip_len 4, not 16'): pooled_features(mae, files, clip_len=16, num_workers=0)
    assert pooled_features(mae, files[:2], 2, num_workers=0).shape==(2,24)

@pytest.mark.parametrize('name', ['resnet18','vit','videomae','vjepa2'])
def test_random_weights_beside_an_encoder_of_others(name):
    "The same kind of network, its weights drawn by seed, though not all of its layers can draw them"
    encoder = makers[name]()
    a,b,c = reinitialized(encoder),reinitialized(encoder),reinitialized(encoder, 1)
    def weights(o): return torch.cat([p.flatten() for p in o.parameters()])
    assert torch.equal(weights(a), weights(b)) and not torch.equal(weights(a), weights(c)) and not torch.equal(weights(a), weights(encoder))
    assert {**a.card, 'seen':0}=={**encoder.card, 'seen':0} and a.training==encoder.training
    assert [p.requires_grad for p in a.parameters()]==[p.requires_grad for p in encoder.parameters()]

@pytest.mark.parametrize('name', ['resnet18','videomae','r3d_18'])
def test_a_saved_encoder_opens_without_being_told_what_it_is(video_folder, tmp_path, name):
    net = makers[name]()
    if name=='r3d_18': net.mean.fill_(.3)
    f = save_tensors(net, card_of(net), tmp_path/'e.safetensors')
    again = load_encoder(f)
    x = torch.rand(1, 3, again.card['clip_len'], net.size, net.size)
    with torch.no_grad(): test_eq(again(x), net.eval()(x))

def test_a_frozen_network_is_fine_tuned_above_its_image_network(video_folder, tmp_path):
    net = foreign_encoder('timm/resnet18', size=24, nf=8)
    dls = labelled(video_folder)
    learn,before = video_learner(dls, net, path=tmp_path),deepcopy(net.state_dict())
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-2)
    changed = {k.split('.')[1] for k,v in learn.model.encoder.state_dict().items() if not v.equal(before[k])}
    test_eq(changed, {'temporal'})
    again = load_encoder(learn.save_encoder(tmp_path/'e.safetensors'))
    test_eq(again.card['arch'], 'timm/resnet18')
    assert set(again.card['seen'])==set(video_ids(dls.train_ds.items))

def test_kept_maps_are_those_of_the_pixels_and_are_not_made_twice(video_folder, tmp_path):
    net,files = foreign_encoder('timm/resnet18', size=32, level=1, nf=8),get_video_files(video_folder)[:3]
    kept = keep_maps(net, files, tmp_path, bs=5)
    stamps = kept.map(lambda o: o.stat().st_mtime_ns)
    test_eq(keep_maps(net, files, tmp_path).map(lambda o: o.stat().st_mtime_ns), stamps)
    test_close(kept_features(net, kept, clips=2), pooled_features(net, files, 2, num_workers=0), eps=1e-6)
    with pytest.raises(ValueError, match='another network'): keep_maps(foreign_encoder('timm/resnet18', size=32, level=1, nf=8), files, tmp_path)

def test_clips_of_maps_are_drawn_as_those_of_videos(tmp_path):
    np.save(tmp_path/'a.npy', np.arange(40, dtype=np.float32).reshape(40,1,1,1))
    seen = set()
    for seed in range(60):
        clip,label = MapClips([tmp_path/'a.npy'], (1,2), 16, seed)[0]
        steps = clip.flatten().diff().unique()
        test_eq(steps, tensor([[1.,2.][label]]))
        seen.add(label)
    test_eq(seen, {0,1})
    with pytest.raises(ValueError, match='1 videos are too short'): MapClips([tmp_path/'a.npy'], (4,), 16)
    net = foreign_encoder('timm/resnet18', size=32, blocks=0)
    with pytest.raises(ValueError, match='nothing to train'): maps_learner(net, [tmp_path/'a.npy'], [0])
