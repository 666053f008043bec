"Section 3.1 and 'Ground-Truth' of the paper, against loops written from its text"
import torch
from hypothesis import given,strategies as st
from prp_fastai.sampling import *

rates,recon = st.sampled_from([1,2,4,8,16]),st.sampled_from([1,2,4])
lengths = st.integers(2, 20)

def naive_target(raw, s, r, l):
    "V(s/r), frame by frame: 'if k2>k1, we can use linear interpolation to generate the ground-truth clip from the raw video'"
    frames = []
    for j in range(r*l):
        whole,part = divmod(j*s, r)
        a = raw[:,whole]
        b = raw[:,whole+1] if whole+1<s*l else a
        frames.append(a + (b-a)*part/r)
    return torch.stack(frames, 1)

@given(s=rates, r=recon, l=lengths, seed=st.integers(0, 99))
def test_target_is_the_papers(s, r, l, seed):
    raw = torch.rand(2, s*l, 2, 3, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(sample_target(raw, s, r), naive_target(raw, s, r, l))

@given(s=rates, r=recon, l=lengths, start=st.integers(0, 50), extra=st.integers(0, 9))
def test_clip_is_every_rth_frame_of_its_target(s, r, l, start, extra):
    video = torch.arange(start+s*l+extra).view(1,-1,1,1)
    X = video[:,[start+k*s for k in range(l)]]
    G = sample_target(video[:,start:start+s*l], s, r)
    assert torch.equal(sample_clip(G, r), X)
    assert torch.equal(video[:,dilated_idxs(s, l, start)], X)

@given(s=rates, r=recon, l=lengths)
def test_target_stays_inside_its_span(s, r, l):
    pos = target_positions(s, r, l)
    assert pos.min()==0 and pos.max()<=s*l-1 and (pos.diff()>=0).all() and len(pos)==r*l

@given(n=st.integers(0, 400), s=rates, l=lengths)
def test_every_start_fits_and_no_more(n, s, l):
    starts = [i for i in range(n) if i+s*l<=n]
    assert n_starts(n, s, l)==len(starts)
    assert (s in feasible_rates(n, (1,2,4,8,16), l))==bool(starts)

@given(s=rates, r=recon)
def test_uint8_target_is_rounded_not_cut(s, r):
    raw = torch.randint(0, 256, (3, s*4, 2, 2), dtype=torch.uint8)
    exact = naive_target(raw.double(), s, r, 4)
    assert (sample_target(raw, s, r).double()-exact).abs().max()<=.5
