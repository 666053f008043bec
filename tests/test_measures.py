"What the experiments compute, on small cases"
import importlib.util,numpy as np,pandas as pd,pytest,torch
from pathlib import Path
from fastcore.test import test_eq

root = Path(__file__).resolve().parent.parent

def script(name):
    spec = importlib.util.spec_from_file_location(f'measure_{name}', root/f'experiments/{name}.py')
    res = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(res)
    return res

@pytest.mark.parametrize('order,needed', [([0,1,2,3],3), ([3,2,1,0],3), ([0,2,1,3],2)])
def test_labels_needed(order, needed): test_eq(script('collection').labels_needed(order, np.array(list('aabb'))), needed)

def test_overlap():
    f = script('rates').overlap
    true = [(0,4,1),(4,8,.5),(8,12,2)]
    found = pd.DataFrame(dict(start=[0,6,8], end=[6,8,12], kind=['as filmed','slow motion','fast forward']))
    assert abs(f(true, found, 'slow motion', .5)-.5)<.01 and abs(f(true, found, 'fast forward', 2)-1)<.01
    test_eq(f(true, found.iloc[:1], 'slow motion', .5), 0)

def test_played():
    x = torch.arange(40, dtype=torch.uint8).view(1,40,1,1).expand(3,-1,2,2)
    f = script('rates').played
    test_eq([f(x, o).shape[1] for o in (.5,1,2)], [80,40,20])
    test_eq(f(x, 2)[0,:,0,0].tolist(), list(range(0,40,2)))

def test_frame_difference_is_its_mean():
    m = script('rates').FrameDifference()
    x = torch.rand(2,3,16,8,8)
    np.testing.assert_allclose(m(x).detach().flatten().exp(), x.diff(dim=2).abs().mean((1,2,3,4))+1e-4, rtol=1e-4)

def test_drawn_labels_cover_every_class():
    train = pd.DataFrame(dict(label=np.repeat(list('abcde'), 20)), index=np.arange(100)+7)
    f = script('few_labels').drawn
    for seed in range(5):
        few = f(train, 14, seed)
        assert len(set(few))==14 and train.loc[few].label.value_counts().min()>=2 and len(train.loc[few].label.unique())==5
    assert set(f(train, 14, 0))!=set(f(train, 14, 1))

def test_boundaries_of_a_timeline():
    "One boundary a tenth of a second off, one made up; the label is wrong for a second and a tenth of eight"
    ends,true = np.array([3.,5.,8.]),np.array(['a','a','b'])
    def label_at(t): return np.where(t>=5.1, 'b', np.where((t>=1) & (t<2), 'b', 'a'))
    o = script('timeline').boundary_scores(np.array([1.,2.,5.1]), label_at, ends, true)
    test_eq([o[k] for k in ('boundaries','found','within')], [1,3,1.])
    np.testing.assert_allclose([o['off'],o['true'],o['right']], [.1,1/3,1-1.1/8], atol=.015)

def test_each_price_of_a_change():
    p = np.array([[.9,.1]]*4+[[.4,.6]]+[[.9,.1]]*3+[[.1,.9]]*8)
    table = pd.DataFrame(dict(start=np.arange(16)/2, end=np.arange(16)/2+.64, label=np.array(list('ab'))[p.argmax(1)], probs=list(p)))
    film = table,np.array([4.,8.]),np.array(['a','b'])
    o = script('timeline').at_each_price([film], (0,4)).set_index('change')
    test_eq(o.found.tolist(), [3,1,1])
    assert o.right[4]>.98>o.right[0] and o.right['evenly spaced']==.5 and o.off['evenly spaced']==0
