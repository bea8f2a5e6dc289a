// What stands under "Examples" in each command's help. test/cli/help.test.ts holds every line against the program.
export const examples: Readonly<Record<string, readonly string[]>> = {
  train: [
    "weft train",
    "weft train --preset gpt2-124m --data text.txt --dry-run",
    "weft train --resume --out runs/shakespeare-cpu --steps 4000",
  ],
  coordinator: [
    "weft coordinator --host 0.0.0.0 --data text.txt --out runs/a",
    "weft coordinator --resume-or-start --out runs/a --checkpoint-to s3://bucket/a",
  ],
  worker: ["weft worker --coordinator ws://host-a:7070", "weft worker --coordinator http://host-a:7070 --gpus all"],
  relay: ["weft relay --coordinator ws://host-a:7070 --host 0.0.0.0"],
  sample: [
    "weft sample --checkpoint runs/a",
    'weft sample --checkpoint runs/a --prompt "To be" --tokens 200',
    "weft sample --from http://host-a:7070 --prompt - < prompt.txt",
  ],
  pull: ["weft pull --from http://host-a:7070 --step best --out a"],
  eval: ["weft eval --checkpoint runs/a --data text.txt --split all"],
  serve: ["weft serve --checkpoint runs/a", "WEFT_TOKEN=... weft serve --checkpoint runs/a --host 0.0.0.0"],
  runs: ["weft runs", "weft runs runs/a runs/b"],
  status: ["weft status", "weft status --from http://host-a:7070 --json"],
  export: ["weft export runs/a > a.csv", "weft export runs/a --format tensorboard --out logs/a"],
  "data prepare": ["weft data prepare text.txt --tokenizer gpt2 --out data/text"],
  "data info": ["weft data info data/text", "weft data info train.bin --tokenizer gpt2"],
  "data train-tokenizer": ["weft data train-tokenizer text.txt --vocab-size 8192 --out tokenizer"],
  convert: ["weft convert runs/a --out a-for-transformers"],
  audit: ["weft audit runs/a", "weft audit runs/a --replay 40-45 --data text.txt"],
  chaos: ["weft chaos --minutes 2 --workers 3"],
  doctor: ["weft doctor", "weft doctor --coordinator ws://host-a:7070"],
  "install tensorflow": ["weft install tensorflow", "weft install tensorflow --cuda"],
  "install xla": ["weft install xla", "weft install xla --cuda 12"],
  completion: [
    "source <(weft completion bash)",
    "weft completion zsh > ~/.zsh-weft && echo source ~/.zsh-weft >> ~/.zshrc",
    "weft completion fish > ~/.config/fish/completions/weft.fish",
  ],
};
