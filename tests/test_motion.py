"Equation 3, against a loop over pixels written from section 3.2 and 4.1"
import numpy as np,pytest,torch
from hypothesis import given,settings,strategies as st
from prp_fastai.motion import *

def naive_pooled(R, l, k, stride):
    "D^t = |R^t-R^(t+1)|^2, then averages over windows of (l-1) x k x k, strides l x stride x stride"
    c,t,h,w = R.shape
    D = np.zeros((t-1, h, w))
    for i in range(t-1):
        for ch in range(c): D[i] += (R[ch,i]-R[ch,i+1])**2/c
    out = np.zeros(((t-1-(l-1))//l+1, (h-k)//stride+1, (w-k)//stride+1))
    for a,b,d in np.ndindex(out.shape):
        total = 0.
        for i in range(l-1):
            for y in range(k):
                for x in range(k): total += D[a*l+i, b*stride+y, d*stride+x]
        out[a,b,d] = total/((l-1)*k*k)
    return out

@pytest.mark.parametrize('s,size,l', [(1,16,4), (2,16,4), (4,20,3), (1,33,5)])
def test_pooled_difference_is_the_papers(s, size, l):
    R = torch.randint(0, 256, (3, s*l, size, size), dtype=torch.uint8)
    want = naive_pooled(R.double().numpy()/255, l, *pool_window(size))
    for x in (R, R.float()/255): np.testing.assert_allclose(pooled_difference(x, l)[0], want, rtol=1e-4, atol=1e-7)

def test_paper_size():
    assert pooled_difference(torch.zeros(3, 16*8, 112, 112, dtype=torch.uint8)).shape==(1,8,13,13)

def test_activation_is_the_papers():
    P = torch.rand(2, 1, 3, 5, 5)
    for p,a in zip(P, activate(P)):
        want = (2.-.8)/(p.max()-p.min())*(p-p.min())+.8
        torch.testing.assert_close(a, want)

def attention(R, s, size=(8,16,16)): return motion_attention(pooled_difference(R, 4)[None], torch.tensor([s]), size)

@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), s=st.sampled_from([1,2,4]), shift=st.integers(0, 100), scale=st.sampled_from([1,30,155]))
def test_attention_is_bounded_and_blind_to_brightness(seed, s, shift, scale):
    R = torch.randint(0, scale+1, (3, 4*s, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    M = attention(R, s)
    assert .8-1e-6<=M.min() and M.max()<=2+1e-6
    assert torch.equal(attention(R+shift, s), M)
    as_float = R.float()/255
    torch.testing.assert_close(attention(as_float+shift/255, s), M, atol=2e-3, rtol=0)

@pytest.mark.parametrize('value', [0, 7, 255])
def test_nothing_moves(value):
    still = torch.full((3, 8, 16, 16), value, dtype=torch.uint8)
    assert (attention(still, 2)==1).all()
    assert (attention(still.float()/255, 2)==1).all()

def test_a_mixed_batch_is_its_items():
    spans = [torch.randint(0, 256, (3, 4*s, 16, 16), dtype=torch.uint8) for s in (1,4,2,4)]
    P = torch.stack([torch.nn.functional.pad(pooled_difference(R, 4), (0,0,0,0,0,4-R.shape[1]//4)) for R in spans])
    M = motion_attention(P, torch.tensor([1,4,2,4]), (8,16,16))
    for i,(R,s) in enumerate(zip(spans, (1,4,2,4))): torch.testing.assert_close(M[i:i+1], attention(R, s))

def test_up_sampling_is_trilinear_without_aligned_corners():
    A = torch.rand(1, 1, 2, 3, 3)
    M = upsample(A, (4,6,6))[0,0]
    def at(dst, n_in, n_out):
        x = min(max((dst+.5)*n_in/n_out-.5, 0), n_in-1)
        lo = int(x)
        return lo,min(lo+1, n_in-1),x-lo
    for t,i,j in np.ndindex(4,6,6):
        total = 0.
        (t0,t1,ft),(i0,i1,fi),(j0,j1,fj) = at(t,2,4),at(i,3,6),at(j,3,6)
        for a,wa in ((t0,1-ft),(t1,ft)):
            for b,wb in ((i0,1-fi),(i1,fi)):
                for c,wc in ((j0,1-fj),(j1,fj)): total += wa*wb*wc*A[0,0,a,b,c].item()
        assert abs(M[t,i,j].item()-total)<1e-5
