/* SPDX-License-Identifier: MIT */
/*
 * A file or pipe that holds a set: the format of <quiesce/transport.h>, and what writing and
 * reading it have in common. save.c writes, restore.c reads.
 */
#ifndef QSC_TRANSPORT_FILE_H
#define QSC_TRANSPORT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include <xxhash.h>

#include <quiesce/transport.h>

#define QSC_FILE_HEAD_SIZE 16U
#define QSC_FILE_TAIL_SIZE 32U
#define QSC_FILE_HASH_SIZE 16U /* the last part of the tail; it covers everything before it */

void qsc_file_encode_head(uint8_t head[QSC_FILE_HEAD_SIZE]);
/* 0; -EBADMSG for something else than a saved set, -EPROTONOSUPPORT. `name` is for the sentence. */
int qsc_file_check_head(const uint8_t head[QSC_FILE_HEAD_SIZE], const char *name,
			struct qsc_error *err);

/* The tail without its hash; `size` bytes of channel came before. */
void qsc_file_encode_tail(uint64_t size, uint8_t tail[QSC_FILE_TAIL_SIZE]);
void qsc_file_encode_hash(XXH128_hash_t hash, uint8_t tail[QSC_FILE_TAIL_SIZE]);

/* A file's place, which stays the same whatever becomes of the working directory. */
struct qsc_file_place {
	int folder;
	const char *path; /* as it was given; owned */
	const char *name; /* its last part */
};

#define QSC_FILE_NOWHERE ((struct qsc_file_place){.folder = -1})

/* -ENOENT and others for the folder; -EINVAL for what cannot be a file's name. */
int qsc_file_find(const char *path, struct qsc_file_place *place, struct qsc_error *err);
/* Idempotent. */
void qsc_file_leave(struct qsc_file_place *place);
/* Rename within the folder; -EEXIST when the new name is taken, also if that happens just now. */
int qsc_file_rename(const struct qsc_file_place *place, const char *from, const char *to);

/* A duplicate of an open file or pipe, or -errno: -EINVAL for what is neither, or does not fit. */
int qsc_file_borrow(int fd, int access_mode, struct stat *info, struct qsc_error *err);

/* The transports. `path` NULL: fd, which stays the caller's. */
int qsc_file_save(const char *path, int fd, struct qsc_transport **transport,
		  struct qsc_error *err);
int qsc_file_restore(const char *path, int fd, const char *spool_directory,
		     struct qsc_transport **transport, struct qsc_error *err);

#endif
