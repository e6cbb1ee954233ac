/* SPDX-License-Identifier: MIT */
/*
 * The VERSION exchange: what each end says it can, as JSON. Parsing is bounded in size and depth; a
 * capability that is not known is ignored, one of the wrong type or out of range is refused.
 */
#ifndef QSC_WIRE_VERSION_H
#define QSC_WIRE_VERSION_H

#include "wire/wire.h"

/*
 * Bytes of a VERSION body, JSON and NUL included: more than all capabilities with a layout of
 * QSC_LAYOUT_PARTS parts take.
 */
#define QSC_WIRE_VERSION_MAX 8192

struct qsc_wire_caps {
	uint32_t max_msg_fds;
	uint32_t max_data_xfer_size;
	uint32_t max_dma_maps;
	uint64_t pgsizes;
	bool twin_socket;
	uint32_t twin_fd_index; /* in a reply that has twin_socket; UINT32_MAX: not named */
	bool write_multiple;
	bool quiesce; /* our own additions, see wire.h */
	/* With `quiesce`, in a reply: what the device is; an empty type where it does not say. */
	struct qsc_layout layout;
};

/* What the specification says of one who names nothing. */
#define QSC_WIRE_CAPS_DEFAULT                                   \
	((struct qsc_wire_caps){.max_msg_fds = 1,               \
				.max_data_xfer_size = 1U << 20, \
				.max_dma_maps = 65535,          \
				.pgsizes = 4096,                \
				.twin_fd_index = UINT32_MAX})

/* Write a body of at most `max` bytes; its size, or -ENOMEM / -EMSGSIZE. */
int qsc_wire_encode_version(const struct qsc_wire_version *version,
			    const struct qsc_wire_caps *caps, void *out, size_t max);

/* -EINVAL for a body that is no VERSION, -ENOMEM. caps starts from the defaults. */
int qsc_wire_decode_version(const void *body, size_t size, struct qsc_wire_version *version,
			    struct qsc_wire_caps *caps);

#endif
