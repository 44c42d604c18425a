// Source in colours: a few rules a language, enough to read by; what they miss stays plain text.
"use strict";
const coloured = (() => {
  const words = (text) => new Set(text.split(" "));
  const HASH = String.raw`#[^\n]*`;
  const SLASHES = String.raw`\/\/[^\n]*|\/\*(?:[^*]|\*(?!\/))*(?:\*\/|$)`;
  const DASHES = String.raw`--[^\n]*`;
  const QUOTED = String.raw`"(?:\\[^]|[^"\\\n])*"?|'(?:\\[^]|[^'\\\n])*'?`;
  const BACKQUOTED = QUOTED + "|`[^`]*`?";
  // Rust's lifetimes and characters begin alike.
  const RUST = String.raw`"(?:\\[^]|[^"\\])*"?|'(?:\\[^']*|[^'\\\n])'`;
  const PYTHON = String.raw`[rbfu]{0,2}(?:"""(?:\\[^]|[^\\])*?(?:"""|$)|'''(?:\\[^]|[^\\])*?(?:'''|$)|${QUOTED})`;
  const C_LIKE = "break case catch class const continue default do else enum false finally for if import new null private " +
    "protected public return static switch this throw true try void while ";
  const SCRIPT = words(C_LIKE + "async await delete export extends function in instanceof interface let of super type typeof " +
    "undefined var yield as string number boolean");
  const LANGUAGES = {
    python: [HASH, PYTHON, words("False None True and as assert async await break class continue def del elif else except " +
      "finally for from global if import in is lambda nonlocal not or pass raise return try while with yield")],
    javascript: [SLASHES, BACKQUOTED, SCRIPT],
    typescript: [SLASHES, BACKQUOTED, SCRIPT],
    cpp: [SLASHES, QUOTED, words(C_LIKE + "auto bool char delete double explicit float int long namespace nullptr operator " +
      "short signed sizeof struct template typedef typename union unsigned using virtual")],
    java: [SLASHES, QUOTED, words(C_LIKE + "abstract boolean byte char double extends final float implements instanceof int " +
      "interface long package short super throws")],
    go: [SLASHES, BACKQUOTED, words("break case chan const continue default defer else false for func go goto if import " +
      "interface map nil package range return select struct switch true type var")],
    rust: [SLASHES, RUST, words("as async await break const continue crate dyn else enum extern false fn for if impl in let " +
      "loop match mod move mut pub ref return self Self static struct super trait true type unsafe use where while")],
    bash: [HASH, QUOTED, words("case do done elif else esac fi for function if in local return select then until while")],
    perl: [HASH, QUOTED, words("and cmp else elsif eq for foreach ge gt if last le lt my ne next not or our package return " +
      "sub unless until use while")],
    lua: [DASHES, QUOTED, words("and break do else elseif end false for function if in local nil not or repeat return then " +
      "true until while")],
  };
  const DEFINES = words("def class function func fn sub struct enum trait interface");

  return (source, language) => {
    const [comment, string, keywords] = LANGUAGES[language] || LANGUAGES.python;
    const token = new RegExp(
      String.raw`(?<c>${comment})|(?<s>${string})|(?<n>\b\d[\w.]*)|(?<w>[\p{L}_][\p{L}\p{N}_]*)`, "gu");
    const code = document.createElement("code");
    let end = 0, before = "";
    for (const found of source.matchAll(token)) {
      let kind = Object.keys(found.groups).find((name) => found.groups[name] !== undefined);
      const text = found[0];
      if (kind === "w") kind = keywords.has(text) ? "k" : DEFINES.has(before) ? "d" : "";
      before = text;
      if (!kind) continue;
      const span = document.createElement("span");
      span.className = kind;
      span.append(text);
      code.append(source.slice(end, found.index), span);
      end = found.index + text.length;
    }
    code.append(source.slice(end));
    const block = document.createElement("pre");
    block.append(code);
    return block;
  };
})();
