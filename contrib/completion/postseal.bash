# Completion of postseal's commands and options, for bash. The program itself is
# asked; it looks at no argument and runs nothing.
_postseal() {
  local current=${COMP_WORDS[COMP_CWORD]}
  local words=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
  [[ $current != -* ]] || words+=(-) # options are told upon a dash
  mapfile -t COMPREPLY < <(compgen -W "$(postseal "${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$current")
}
complete -o default -F _postseal postseal
