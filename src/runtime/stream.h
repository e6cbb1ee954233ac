/* SPDX-License-Identifier: MIT */
/*
 * The format of a device's state stream. Pure: works on bytes it is given, in pieces of any size
 * (SESS-5), and trusts none of them. All numbers are little-endian.
 *
 * - prologue: magic "QSCSTATE", u16 major, u16 minor, u32 size of the header.
 * - header: u32 capabilities a reader needs; u32 vectors of INTx, of MSI and of MSI-X; u32 most
 * bytes of custom state; u16 sections; u16 blocks; the type; for each section its name, u16 version
 * and u32 size; for each block its name and u64 size. A name is a u8 length and that many bytes. A
 *   later minor version may append to the header.
 * - records: u16 type, u16 zero, u32 index, u64 size, then `size` bytes.
 * - end: a record with the XXH3 of every byte before the hash.
 *
 * Pages of blocks come first and as often as they changed, then every section once and in order,
 * the custom state if the model has any, and the interrupts held. A record whose type has
 * QSC_STREAM_OPTIONAL set may be skipped by a reader that does not know it; so a later minor
 * version stays readable, and another major version is refused (SESS-11).
 */
#ifndef QSC_RUNTIME_STREAM_H
#define QSC_RUNTIME_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/runtime.h>

#include "runtime/irq.h"

#define QSC_STREAM_MAJOR       1U
#define QSC_STREAM_MINOR       0U
#define QSC_STREAM_RECORD_SIZE 16U
#define QSC_STREAM_HELD_SIZE   16U /* u32 index, u32 vector, u64 count */
#define QSC_STREAM_END_SIZE    8U
#define QSC_STREAM_MAX_NAME    (QSC_LAYOUT_NAME - 1U)
#define QSC_STREAM_PAGE_SIZE   4096U

enum qsc_stream_record {
	QSC_STREAM_PAGES = 1, /* index: block; u64 offset, then whole pages */
	QSC_STREAM_ZERO = 2,  /* index: block; u64 offset, u64 size: became zero again */
	QSC_STREAM_SECTION = 3,
	QSC_STREAM_CUSTOM = 4,
	QSC_STREAM_HELD = 5, /* interrupts */
	QSC_STREAM_END = 6,
	QSC_STREAM_OPTIONAL = 0x8000,
};

/* Capabilities that a stream may need of its reader. */
#define QSC_STREAM_NEEDS_BLOCKS 1U
#define QSC_STREAM_NEEDS_CUSTOM 2U

/* What a device is, as far as a stream must fit it. */
struct qsc_stream_layout {
	const char *type;
	uint32_t vectors[QSC_IRQ_INDICES];
	uint32_t custom_max;
	uint32_t num_sections;
	const struct qsc_section *sections;
	uint32_t num_blocks;
	const struct qsc_block_desc *blocks;
};

/* What a user is told of it before there is a stream. At most QSC_LAYOUT_PARTS parts. */
void qsc_stream_describe(const struct qsc_stream_layout *layout, struct qsc_layout *out);

/* ---- writing ---- */

size_t qsc_stream_header_size(const struct qsc_stream_layout *layout);
void qsc_stream_put_header(const struct qsc_stream_layout *layout, uint8_t *bytes);
void qsc_stream_put_record(uint8_t bytes[QSC_STREAM_RECORD_SIZE], enum qsc_stream_record type,
			   uint32_t index, uint64_t size);
void qsc_stream_put_u64(uint8_t bytes[8], uint64_t value);
void qsc_stream_put_held(uint8_t bytes[QSC_STREAM_HELD_SIZE], const struct qsc_irq_held *held);

/* ---- reading ---- */

/*
 * Where a stream goes. Everything is within the layout. A result below zero refuses the stream;
 * the sink then says why in err.
 */
struct qsc_stream_sink {
	/* The header fits: from here on things may change. */
	int (*begin)(void *ctx, struct qsc_error *err);
	/* A part of pages, in order, of any size. */
	int (*data)(void *ctx, uint32_t block, uint64_t offset, const uint8_t *bytes, size_t size,
		    struct qsc_error *err);
	int (*zero)(void *ctx, uint32_t block, uint64_t offset, uint64_t size,
		    struct qsc_error *err);
	/* As many bytes as the layout's section has; what an older one lacked is zero. */
	void (*section)(void *ctx, uint32_t index, const uint8_t *bytes);
	void (*custom)(void *ctx, const uint8_t *bytes, size_t size);
	void (*held)(void *ctx, const struct qsc_irq_held *held, size_t count);
};

struct qsc_stream_parser;

/* The layout and the sink must outlive it. -ENOMEM. */
int qsc_stream_parser_create(const struct qsc_stream_layout *layout,
			     const struct qsc_stream_sink *sink, void *ctx,
			     struct qsc_stream_parser **out);
void qsc_stream_parser_destroy(struct qsc_stream_parser *parser);

/*
 * Take more bytes. 0, or the reason for which the stream is refused, then and from then on: -EINVAL
 * for one that is not meant for this layout, which is found before begin() was called; -EBADMSG for
 * one that is broken, inconsistent or goes on behind its end.
 */
int qsc_stream_parse(struct qsc_stream_parser *parser, const void *data, size_t size,
		     struct qsc_error *err);

/* Is it complete? 0, -ENODATA when more must come, or the reason it was refused for. */
int qsc_stream_finish(const struct qsc_stream_parser *parser, struct qsc_error *err);

#endif
