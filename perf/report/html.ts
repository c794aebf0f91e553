/**
 * HTML by template, escaped by construction: what is put into a template is text, unless it came out of one.
 * Names come from firmware tables and configuration files, and may say anything.
 */

/** Text that is HTML already. Made by the templates below only. */
export class Markup {
  readonly text: string;

  private constructor(text: string) {
    this.text = text;
  }

  /** @param text  that the caller answers for: a style sheet or a script of ours or of a library */
  static trusted(text: string): Markup {
    return new Markup(text);
  }

  toString(): string {
    return this.text;
  }
}

export type Insert = string | number | Markup | null | readonly Insert[];

/** html`<td>${name}</td>`: null is nothing, a list is its members one after the other. */
export function html(parts: TemplateStringsArray, ...inserts: Insert[]): Markup {
  let text = parts[0]!;
  for (const [i, insert] of inserts.entries()) text += markupOf(insert) + parts[i + 1]!;
  return Markup.trusted(text);
}

function markupOf(insert: Insert): string {
  if (insert === null) return '';
  if (insert instanceof Markup) return insert.text;
  if (typeof insert === 'number') return String(insert);
  if (typeof insert === 'string') return escapeText(insert);
  return insert.map(markupOf).join('');
}

const ENTITIES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** For text and for quoted attributes. Control characters, which XML and terminals dislike, show as a box. */
export function escapeText(text: string): string {
  return text
    .replace(/[&<>"']/g, (c) => ENTITIES[c]!)
    .replace(/[^\P{Cc}\t\n]/gu, '\ufffd')
    .replace(/[\u202a-\u202e\u2066-\u2069]/g, '\ufffd');
}

/** JSON for a `<script type="application/json">`: nothing in it ends the element or opens a comment. */
export function jsonBlock(value: unknown): Markup {
  const text = JSON.stringify(value)
    .replace(/</g, '\\u003c')
    .replace(/>/g, '\\u003e')
    .replace(/\u2028/g, '\\u2028')
    .replace(/\u2029/g, '\\u2029');
  return Markup.trusted(text);
}
