#!/bin/bash
# All studies, in the order of evidence per second: the first commands give one seed of most claims, later ones add seeds and models.
#
#     MODELS=FOLDER DATA=FOLDER bash experiments/all.sh
#
# MODELS has multilingual-e5-small as e5-small, and mpnet-base; DATA has conll2003, kaznerd and rotten_tomatoes. The comment above a command
# is its estimated processor seconds on one thread of a fast machine; one without AVX-512 takes 1.7 times as long. Every study goes on where it was
# stopped, so this script may be ended and started again; what it has written in experiments/ is to be committed.
set -e
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=137438953472 TOKENIZERS_PARALLELISM=false

D=$DATA; E5="--model $MODELS/e5-small --clock processor"; MP="--model $MODELS/mpnet-base --clock processor"; ML="--model demo --clock processor"
S="python experiments/study.py"; N=experiments/static_ner; T=experiments/tokenizer; F=experiments/few_shot; R=experiments/static_sentiment
CO="--dataset $D/conll2003"; KA="--dataset $D/kaznerd"; RT="--dataset $D/rotten_tomatoes"
PC="--published experiments/published/static_conll2003.csv"; PK="--published experiments/published/static_kaznerd.csv"; PS="--published experiments/published/static_sentiment.csv"
# 320 s: times of the ten, no cache (bottom-up against top-down, eq. 5)
$S compare $N/conll2003_time.toml $E5 $CO $PC
# 1,620 s: static depths, seed 0
$S compare $N/conll2003_e5-small.toml $E5 $CO $PC --seeds 0
# 1,120 s: the same on Kazakh
$S compare $N/kaznerd_e5-small.toml $E5 $KA $PK --seeds 0
# 830 s: Kazakh with an English vocabulary
$S compare $T/kaznerd_minilm.toml $ML $KA --seeds 0
# 580 s: the same model in English
$S compare $T/conll2003_minilm.toml $ML $CO --seeds 0
# 1,060 s: sentiment, seed 0
$S compare $R/rotten_tomatoes_e5-small.toml $E5 $RT $PS --seeds 0
# 770 s: few-shot
$S compare $F/rotten_tomatoes.toml --per-class 16 --name rotten_tomatoes_16 $E5 $RT --seeds 0 1 2
# 690 s
$S compare $F/conll2003.toml --per-class 16 --name conll2003_16 $E5 $CO --seeds 0 1 2
# 4,500 s: adaptive policies and both controls
$S compare experiments/adaptive/conll2003_e5-small.toml $E5 $CO
# 3,240 s: static depths, seeds 1 and 2
$S compare $N/conll2003_e5-small.toml $E5 $CO $PC --seeds 1 2
# 2,240 s
$S compare $N/kaznerd_e5-small.toml $E5 $KA $PK --seeds 1 2
# 1,660 s
$S compare $T/kaznerd_minilm.toml $ML $KA --seeds 1 2
# 1,160 s
$S compare $T/conll2003_minilm.toml $ML $CO --seeds 1 2
# 3,300 s: seeds 1 and 2, and the shorter schedules of all three
$S compare $R/rotten_tomatoes_e5-small.toml $E5 $RT $PS --seeds 0 1 2 --short-full
# 1,740 s
$S compare $F/rotten_tomatoes.toml --per-class 64 --name rotten_tomatoes_64 $E5 $RT --seeds 0 1 2
# 1,800 s
$S compare $F/conll2003.toml --per-class 64 --name conll2003_64 $E5 $CO --seeds 0 1 2
# 1,320 s: 13 depths, one seed
$S search experiments/depth_search/conll2003_e5-small.toml $E5 $CO
# 150 s: trains only what the whole search pruned; tests again
$S search experiments/depth_search/conll2003_e5-small.toml $E5 $CO --quick --name conll2003_quick --start-from experiments/depth_search/conll2003_e5-small.jsonl
# 1,320 s
$S search experiments/depth_search/kaznerd_e5-small.toml $E5 $KA
# 150 s
$S search experiments/depth_search/kaznerd_e5-small.toml $E5 $KA --quick --name kaznerd_quick --start-from experiments/depth_search/kaznerd_e5-small.jsonl
# 1,580 s: the study's shape, one seed
$S compare $N/conll2003_mpnet-base.toml $MP $CO $PC
# 1,270 s
$S compare $R/rotten_tomatoes_mpnet-base.toml $MP $RT $PS
# 1,660 s: quality from the top
$S compare $N/conll2003_e5-small.toml $E5 $CO $PC --seeds 0 --scenarios top-down:3,embeddings=true top-down:6,embeddings=true top-down:9,embeddings=true top-down:12,embeddings=true
# 5 s
python experiments/long/prepare.py --dataset $D/conll2003 --model $MODELS/e5-small --output runs/documents
# 700 s: whole documents in pieces
$S compare experiments/long/conll2003.toml $E5 --dataset runs/documents/128 --batch-size 4 --name conll2003_128
# 850 s
$S compare experiments/long/conll2003.toml $E5 --dataset runs/documents/512 --max-length 512 --batch-size 1 --name conll2003_512
# 700 s
$S compare experiments/long/conll2003.toml $E5 --dataset runs/documents/sentences --name conll2003_sentences
# 1,100 s
$S compare $F/rotten_tomatoes.toml --per-class 32 --name rotten_tomatoes_32 $E5 $RT --seeds 0 1 2
# 1,050 s
$S compare $F/conll2003.toml --per-class 32 --name conll2003_32 $E5 $CO --seeds 0 1 2
# 600 s
$S compare $F/rotten_tomatoes.toml --per-class 8 --name rotten_tomatoes_8 $E5 $RT --seeds 0 1 2
# 500 s
$S compare $F/conll2003.toml --per-class 8 --name conll2003_8 $E5 $CO --seeds 0 1 2
# 2,400 s: the study's shape and vocabulary on Kazakh
$S compare $T/kaznerd_mpnet-base.toml $MP $KA
# 5 s: last quarter, rare classes, tokenizer (any time)
python experiments/relative.py $N/conll2003_e5-small.jsonl $N/kaznerd_e5-small.jsonl $T/*.jsonl $R/*.jsonl
# 2,700 s: sequences of tasks
Q="python experiments/transfer/sequence.py"
$Q $E5 --ner $D/conll2003 $D/kaznerd --limits 750 500 --test-limit 500 --policies bottom-up:0 bottom-up:3 bottom-up:6 bottom-up:9 bottom-up:12
# 1,500 s
$Q $ML --halves $D/rotten_tomatoes --limits 500 500 --policies bottom-up:0 bottom-up:2 bottom-up:4 bottom-up:6 top-down:3
# 1,500 s: data sieving, alone and with freezing, beside a blind sieve and shorter schedules
$S compare experiments/sieve/conll2003_minilm.toml $ML $CO --short-full
$S compare experiments/sieve/rotten_tomatoes_minilm.toml $ML $RT --short-full
# 1,200 s: going on, freezing or stopping, beside stopping alone and shorter schedules
$S compare experiments/adaptive/runtime_choice.toml $ML $CO --short-full
python experiments/early_stopping.py experiments/adaptive/runtime_choice.jsonl
# 2,100 s: masks below a unit
$S compare experiments/partial/rotten_tomatoes_minilm.toml $ML $RT
# 4,200 s: learning rates by block
$S compare experiments/learning_rates/conll2003_decay.toml $ML $CO
for SEED in 0 1 2; do
    $S search experiments/learning_rates/conll2003_depths.toml $ML $CO --seeds $SEED --name conll2003_depths_$SEED
    $S search experiments/learning_rates/conll2003_rates.toml $ML $CO --seeds $SEED --name conll2003_rates_$SEED
done
# 3,000 s: published policies on text classification
$S compare experiments/adaptive/rotten_tomatoes_e5-small.toml $E5 $RT
# 600 s: energy as CodeCarbon estimates it (pip install codecarbon)
python experiments/energy/estimate.py --model $MODELS/e5-small --dataset $D/conll2003
