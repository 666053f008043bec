"Agreement with what the authors' code gives (tests/reference/README.md)"
import json,zlib
from pathlib import Path
import numpy as np,pytest,torch
from prp_fastai.motion import MotionAttention
from prp_fastai.recipe import authors
from prp_fastai.weights import from_authors,to_authors

ref = Path(__file__).parent/'reference'
keys = json.loads((ref/'authors_state_dict_keys.json').read_text())
close = dict(atol=1e-4, rtol=1e-3)

def fill(key, shape):
    "The tensor that stands for `key` in the reference runs"
    if key.endswith('num_batches_tracked'): return np.array(1)
    x = np.random.RandomState(zlib.crc32(key.encode()) & 0x7fffffff).standard_normal(shape).astype('float32')
    if key.endswith('running_var'): return 1 + .1*np.abs(x)
    if key.endswith('running_mean'): return .1*x
    if len(shape)==1: return 1 + .1*x if key.endswith('weight') else .1*x
    return x * np.float32((2/np.prod(shape[1:]))**.5)

def filled(arch): return {k: torch.from_numpy(np.asarray(fill(k.removeprefix('module.'), s))) for k,s in keys[arch].items()}

def test_c3d_gives_the_authors_values():
    model,want = from_authors(filled('c3d')).eval(),np.load(ref/'c3d.npz')
    x = torch.from_numpy(np.random.RandomState(0).random_sample((2,3,16,112,112)).astype('float32'))
    with torch.no_grad(): features,(logits,recon) = model.encoder(x),model(x)
    np.testing.assert_allclose(features.sum((2,3,4)), want['features_sum'], **close)
    np.testing.assert_allclose(features[:,::16,:,::2,::2], want['features_slice'], **close)
    np.testing.assert_allclose(logits, want['rate_logits'], **close)
    np.testing.assert_allclose(recon[:,:,::4,::8,::8], want['reconstruction_slice'], **close)
    np.testing.assert_allclose(recon.mean((3,4)), want['reconstruction_mean'], **close)

@pytest.mark.parametrize('arch', keys)
def test_checkpoints_convert_both_ways(arch):
    state = filled(arch)
    back = to_authors(from_authors(state))
    assert {k: list(v.shape) for k,v in back.items()}==keys[arch]
    for k,v in state.items(): assert torch.equal(back[k].reshape(v.shape), v), k

def test_foreign_checkpoint_is_refused():
    state = filled('r3d')
    del state['module.fc8.weight']
    with pytest.raises(ValueError, match='1 keys differ, the first is fc8.weight'): from_authors(state)

def moving_blob(r, T):
    "The clip of the reference runs, drawn from the generator `r`: (3,T,112,112) in 0..1"
    yy,xx = np.mgrid[:112,:112]
    tex,clip = r.random_sample((3,112,112)).astype('float32')*.3,np.empty((3,T,112,112), 'float32')
    for t in range(T):
        blob = np.exp(-((xx-20-70*t/T)**2+(yy-30-40*np.sin(6.28*t/40))**2)/120.)
        for c in range(3): clip[c,t] = np.clip(tex[c]+blob*(.4+.2*c), 0, 1)
    return torch.from_numpy(clip)

def test_authors_preset_gives_the_authors_attention():
    want,r = np.load(ref/'authors_motion_attention.npz'),np.random.RandomState(1)
    motion = MotionAttention(**{k: getattr(authors, k) for k in ('diff','norm','per_channel','time_interp','eps')})
    for s in (1,2):
        R = moving_blob(r, 16*s)
        np.testing.assert_allclose(R.mean((2,3)), want[f's{s}_frames_mean'], **close)
        M = motion(motion.pool(R)[None], torch.tensor([s]), (32,112,112))[0]
        np.testing.assert_allclose(M[:,:,::8,::8], want[f's{s}_attention'], **close)
