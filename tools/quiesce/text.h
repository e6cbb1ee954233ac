/* SPDX-License-Identifier: MIT */
/* Numbers and other people's text the way a person reads them. */
#ifndef TEXT_H
#define TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Room for any number below. */
#define TEXT_SIZE 32

/* "1.84 s", "7.1 ms", "320 us"; "256 MiB"; "31.9 MiB/s"; "12 345". Return buf. */
const char *text_time(char *buf, uint64_t us);
const char *text_bytes(char *buf, uint64_t bytes);
const char *text_rate(char *buf, uint64_t bytes_per_second);
const char *text_count(char *buf, uint64_t count);
/* A rate; 0 for one that is none. */
uint64_t text_per_second(uint64_t bytes, uint64_t us);

/*
 * The next character of UTF-8 text: how many bytes it has, 0 at the end, -1 when what stands there
 * is none (one byte then), or is a control character, which could steer a terminal.
 */
int text_next(const char *text);
/*
 * Copy text from elsewhere into size bytes: what is no UTF-8 or a control character becomes '?',
 * and so does all that is not ASCII unless utf8. Cut between characters. `to` may be `from`.
 */
void text_clean(char *to, size_t size, const char *from, bool utf8);
/*
 * A word of a command line, so that a shell takes it for just that, to a stream. What needs no
 * quotes gets none.
 */
void text_shell(FILE *out, const char *word);
/*
 * Text to a stream, in lines as it is, with '?' for what no reader of UTF-8 takes: JSON, and, with
 * what stands for markup written as such, XML.
 */
void text_write(FILE *out, const char *text);
void text_xml(FILE *out, const char *text);
/* Cut clean text to so many characters. Returns how many it has. */
size_t text_cut(char *text, size_t columns);

#endif
