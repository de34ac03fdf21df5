"""Completion of the command line in a shell, made from its parser."""


def flags_of(parser):
    """[(flag, its choices or None, its help)] of a parser."""
    return [(flag, action.choices, action.help or '') for action in parser._actions
            for flag in action.option_strings if flag.startswith('--')]


def script(shell, parser):
    """The text of a completion file for bash, zsh or fish."""
    commands = parser.commands
    if shell == 'fish':
        lines = [f"complete -c p2phd.py -f -n __fish_use_subcommand -a '{name}'"
                 for name in commands]
        for name, sub in commands.items():
            seen = f"-n '__fish_seen_subcommand_from {name}'"
            for flag, choices, text in flags_of(sub):
                more = f" -x -a '{' '.join(map(str, choices))}'" if choices else ''
                text = text.split('. ')[0].replace("'", '').replace('%', '')
                lines.append(f"complete -c p2phd.py {seen} -l {flag[2:]}{more} -d '{text[:70]}'")
        return '\n'.join(lines)

    cases = []
    for name, sub in commands.items():
        words = ' '.join(flag for flag, _, _ in flags_of(sub))
        values = ''.join(f'            {flag}) words="{" ".join(map(str, choices))}" ;;\n'
                         for flag, choices, _ in flags_of(sub) if choices)
        inner = f'        case "$before" in\n{values}        esac\n' if values else ''
        cases.append(f'    {name})\n        words="{words}"\n{inner}        ;;')
    text = BASH.replace('COMMANDS', ' '.join(commands)).replace('CASES', '\n'.join(cases))
    return ('autoload -U +X bashcompinit && bashcompinit\n' if shell == 'zsh' else '') + text


BASH = '''_p2phd() {
    local now=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words=
    case "${COMP_WORDS[1]}" in
CASES
    *) words="COMMANDS" ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$now"))
}
complete -o default -F _p2phd p2phd.py ./p2phd.py'''
