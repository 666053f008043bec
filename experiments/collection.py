"""Does `explore_videos` find what it should? Labels that k-centre needs to cover all classes, and near duplicates that were planted.

`prp-render mocap15` renders the videos; `python experiments/collection.py mocap15` takes the test videos of split 1, which the packaged encoder has not seen."""
from fastcore.script import call_parse
from prp_fastai.all import *
import tempfile

results = Path(__file__).parent/'results'

def labels_needed(order, labels):
    "How many videos have to be labelled, in this order, until every class has one"
    return 1+max({o: i for i,o in reversed(list(enumerate(labels[order])))}.values())

def coverage(files, labels, draws=20):
    "Labels until all classes are covered: by k-centre, and by random draws"
    encoder = load_encoder('sample')
    x,_ = video_features(encoder, files, protocol_for('rspnet', card_of(encoder)), num_workers=0)
    chance = [labels_needed(np.random.default_rng(i).permutation(len(files)), labels) for i in range(draws)]
    return dict(classes=len(set(labels)), videos=len(files), k_centre=labels_needed(k_centre(x, len(files)), labels),
                random_median=np.median(chance), random_least=min(chance), random_most=max(chance))

def copies(f, folder):
    "A video compressed anew, scaled, brightened and trimmed"
    with VideoReader(f) as v: x = v.frames(range(len(v)), (120,160)).as_subclass(Tensor)
    small = F.interpolate(x.transpose(0, 1).float(), size=(90,120)).transpose(0, 1)
    made = dict(anew=(x, 35), small=(small, 23), bright=((x*1.1).clip(0, 255), 23), trimmed=(x[:,8:-6], 23))
    return {k: write_video(folder/f'{f.stem}_{k}.mp4', o.to(torch.uint8), fps=25, crf=crf) for k,(o,crf) in made.items()}

def duplicates(files, n, folder):
    "Planted copies that are found, and pairs of other videos that are taken for copies"
    planted = [(f,k,o) for f in files[::len(files)//n] for k,o in copies(f, folder).items()]
    every = [*files, *(o for *_,o in planted)]
    looks = [o for o,_ in looks_of(every)]
    pairs = near_duplicates(signatures(looks))
    found = {frozenset((every[int(a)], every[int(b)])) for a,b in zip(pairs.a, pairs.b)}
    kinds = pd.Series({(k,o): frozenset((f,o)) in found for f,k,o in planted}).groupby(level=0).agg(['sum','size'])
    wrong = [o for o in found if all(p in set(files) for p in o)]
    return kinds,len(wrong)

@call_parse
def main(
    path:Path, # Folder of `prp-render`
    n:int=20, # Videos that are copied
):
    "Measure what `explore_videos` finds"
    df = list_videos(path/'split/testlist01.txt', root=path/'video')
    files = L(df.path.tolist()).map(Path)
    cover = pd.DataFrame([coverage(files, np.array(files.map(parent_label)))])
    with tempfile.TemporaryDirectory() as d: kinds,wrong = duplicates(files, n, Path(d))
    kinds = kinds.rename(columns=dict(sum='found', size='planted')).rename_axis('copy').reset_index()
    for name,o in (('coverage', cover), ('duplicates', kinds.assign(others_taken_for_copies=wrong))):
        print(o.to_string())
        o.to_csv(results/f'{name}.csv', index=False)
