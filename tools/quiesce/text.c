/* SPDX-License-Identifier: MIT */
/* See text.h. */
#include "text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *text_time(char *buf, uint64_t us)
{
	double value = (double)us;

	if (us < 1000)
		(void)snprintf(buf, TEXT_SIZE, "%" PRIu64 " us", us);
	else if (us < 10000)
		(void)snprintf(buf, TEXT_SIZE, "%.1f ms", value / 1e3);
	else if (us < 1000000)
		(void)snprintf(buf, TEXT_SIZE, "%.0f ms", value / 1e3);
	else if (us < 100000000)
		(void)snprintf(buf, TEXT_SIZE, "%.2f s", value / 1e6);
	else
		(void)snprintf(buf, TEXT_SIZE, "%.0f s", value / 1e6);
	return buf;
}

/* At most 20 characters, and so as a rate. */
const char *text_bytes(char *buf, uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	int unit = 0;

	while (value >= 1024 && unit < 6) {
		value /= 1024;
		unit++;
	}
	(void)snprintf(buf, TEXT_SIZE, "%.*f %s", unit && value < 100 ? 1 : 0, value, units[unit]);
	return buf;
}

const char *text_rate(char *buf, uint64_t bytes_per_second)
{
	size_t length;

	(void)text_bytes(buf, bytes_per_second);
	length = strlen(buf);
	(void)snprintf(buf + length, TEXT_SIZE - length, "/s");
	return buf;
}

/* With blanks between thousands. */
const char *text_count(char *buf, uint64_t count)
{
	char digits[24];
	int i, n = snprintf(digits, sizeof(digits), "%" PRIu64, count), at = 0;

	for (i = 0; i < n; i++) {
		if (i && (n - i) % 3 == 0)
			buf[at++] = ' ';
		buf[at++] = digits[i];
	}
	buf[at] = 0;
	return buf;
}

uint64_t text_per_second(uint64_t bytes, uint64_t us)
{
	double rate = (double)bytes * 1e6 / (double)us;

	return us && rate < 1e19 ? (uint64_t)rate : 0;
}

/* ---- text from elsewhere ---- */

/* Length and value by the first byte; 0 for one that cannot be first. */
static int utf8_lead(unsigned char byte, uint32_t *value)
{
	if (byte < 0x80)
		*value = byte;
	else if (byte >= 0xc2 && byte <= 0xdf)
		*value = byte & 0x1fU;
	else if (byte >= 0xe0 && byte <= 0xef)
		*value = byte & 0x0fU;
	else if (byte >= 0xf0 && byte <= 0xf4)
		*value = byte & 0x07U;
	else
		return 0;
	return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

/* Neither a control character nor one that turns the direction of the text around. */
static bool is_shown(uint32_t value)
{
	if (value < 0x20 || (value >= 0x7f && value < 0xa0))
		return false;
	return !(value >= 0x200e && value <= 0x200f) && !(value >= 0x2028 && value <= 0x202e) &&
	       !(value >= 0x2066 && value <= 0x2069) && value < 0x110000 &&
	       !(value >= 0xd800 && value < 0xe000) && (value & 0xfffeU) != 0xfffeU;
}

int text_next(const char *text)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	uint32_t value;
	int length, i;

	if (!*text)
		return 0;
	length = utf8_lead((unsigned char)*text, &value);
	for (i = 1; i < length; i++) {
		unsigned char byte = (unsigned char)text[i];

		/* The end of the text is no continuation either. */
		if ((byte & 0xc0U) != 0x80)
			return -1;
		value = value << 6 | (byte & 0x3fU);
	}
	return length && value >= least[length] && is_shown(value) ? length : -1;
}

void text_clean(char *to, size_t size, const char *from, bool utf8)
{
	size_t at = 0;
	int length;

	while ((length = text_next(from)) != 0) {
		bool good = length == 1 || (length > 1 && utf8);
		size_t taken = length > 0 ? (size_t)length : 1;
		size_t given = good ? taken : 1;

		if (at + given >= size)
			break;
		if (good)
			memmove(to + at, from, given);
		else
			to[at] = '?';
		at += given;
		from += taken;
	}
	to[at] = 0;
}

size_t text_cut(char *text, size_t columns)
{
	size_t used = 0;
	int length;

	while (used < columns && (length = text_next(text)) != 0) {
		text += length > 0 ? length : 1;
		used++;
	}
	*text = 0;
	return used;
}

void text_shell(FILE *out, const char *word)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				    "%+,-./:=@^_";

	if (*word && !word[strspn(word, plain)]) {
		(void)fputs(word, out);
		return;
	}
	(void)fputc('\'', out);
	for (; *word; word++)
		if (*word == '\'')
			(void)fputs("'\\''", out);
		else
			(void)fputc(*word, out);
	(void)fputc('\'', out);
}

/* The next character, or '?'. Returns how many bytes it has. */
static size_t write_one(FILE *out, const char *text)
{
	int length = text_next(text);

	if (length > 0)
		(void)fwrite(text, 1, (size_t)length, out);
	else
		(void)fputc(*text == '\n' || *text == '\t' ? *text : '?', out);
	return length > 0 ? (size_t)length : 1;
}

void text_write(FILE *out, const char *text)
{
	while (*text)
		text += write_one(out, text);
}

void text_xml(FILE *out, const char *text)
{
	while (*text) {
		const char *entity = *text == '&'   ? "&amp;"
				     : *text == '<' ? "&lt;"
				     : *text == '>' ? "&gt;"
				     : *text == '"' ? "&quot;"
						    : NULL;

		if (entity)
			(void)fputs(entity, out);
		text += entity ? 1 : write_one(out, text);
	}
}
