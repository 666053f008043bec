"""What do 40 labels buy? Frozen probes, nearest neighbours and fine-tuning, with the packaged encoder and with random weights.

`prp-render mocap15` renders the videos. `python experiments/few_labels.py mocap15` draws 40 training videos of split 1, at least two of each class, several times, and tests on all 240 test videos; where torchvision's weights of Kinetics-400
are in its cache, `--kinetics` adds its R3D-18."""
from fastcore.script import call_parse
from prp_fastai.all import *
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

results = Path(__file__).parent/'results'

def labelled(path, split):
    files = L(list_videos(path/f'split/{split}list01.txt', root=path/'video').path.tolist()).map(Path)
    return pd.DataFrame(dict(path=files, label=files.map(parent_label), is_test=split=='test'))

def drawn(train, n, seed):
    "Numbers of `n` videos, two of each class and the rest by chance"
    order = train.sample(frac=1, random_state=seed)
    two = order.groupby('label').head(2)
    return pd.concat([two, order.drop(two.index).head(n-len(two))]).index

def kinetics():
    "torchvision's R3D-18, trained with 400,000 labelled videos"
    from torchvision.models.video import r3d_18,R3D_18_Weights
    encoder = create_encoder('r3d_18')
    encoder.load_state_dict(r3d_18(weights=R3D_18_Weights.DEFAULT).state_dict(), strict=False)
    return encoder

def probes(x, y, few, test):
    "Accuracy of a linear probe and of the nearest neighbour on features"
    ways = dict(probe=LogisticRegression(max_iter=2000), kNN=KNeighborsClassifier(1, metric='cosine'))
    return {k: make_pipeline(StandardScaler(), m).fit(x[few], y[few]).score(x[test], y[test]) for k,m in ways.items()}

def fine_tuned(encoder, df, few, seed, epochs):
    "Accuracy of ten averaged clips after fine-tuning on `few`"
    part = pd.concat([df.loc[few], df[df.is_test]])
    dls = VideoDataLoaders.from_df(part, size=56, bs=8, num_workers=0, valid_pct=.1, test_col='is_test', by_group=False)
    set_seed(seed)
    learn = video_learner(dls, encoder=deepcopy(encoder), opt_func=prp_adamw)
    with learn.no_logging(): learn.remove_cb(ProgressCallback).fit_one_cycle(epochs, 4e-3)
    return recognition_accuracy(learn)

@call_parse
def main(
    path:Path, # Folder of `prp-render`
    labels:int=40, # How many training videos have a label
    draws:int=10, # Of these videos, for frozen features
    tuned:int=3, # Draws that are fine-tuned on too
    epochs:int=40, # Of fine-tuning
    with_kinetics:bool=False, # torchvision's encoder too? Its weights are downloaded if they are not there
):
    "Measure what a few labels buy"
    df = pd.concat([labelled(path, o) for o in ('train','test')], ignore_index=True)
    train,test,y = df[~df.is_test],df.index[df.is_test],df.label.to_numpy()
    encoders,rows = {'PRP': load_encoder('sample'), 'random': reinitialized(load_encoder('sample'))},[]
    if with_kinetics: encoders['Kinetics-400'] = kinetics()
    for name,encoder in encoders.items():
        size = {} if card_of(encoder) else dict(size=112)
        x = pooled_features(encoder, df.path.tolist(), clips=3, num_workers=2, **size)
        for seed in range(draws):
            few = drawn(train, labels, seed)
            for way,accuracy in probes(x, y, few, test).items(): rows.append((name, way, seed, accuracy))
            if seed<tuned and card_of(encoder): rows.append((name, 'fine-tuned', seed, fine_tuned(encoder, df, few, seed, epochs)))
            pd.DataFrame(rows, columns=['encoder','way','draw','accuracy']).to_csv(results/'few_labels.csv', index=False)
    print(pd.read_csv(results/'few_labels.csv').groupby(['way','encoder']).accuracy.agg(['mean','min','max','size']).round(3).to_string())
