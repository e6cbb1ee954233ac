/* SPDX-License-Identifier: MIT */
/* For tests: certificates and keys of every kind, made at test time in a temporary folder. */
#ifndef QSC_TRANSPORT_PKI_H
#define QSC_TRANSPORT_PKI_H

/*
 * The folder then holds pairs NAME.pem and NAME.key: ca (an authority, which signed the others
 * where it does not say otherwise), stranger-ca (another), destination (for localhost and the
 * loopback addresses), source, stranger (signed by stranger-ca), expired, future, elsewhere (for
 * another host), client-only (a client's), weak (RSA of 1024 bits), self (signed by itself).
 */
struct pki {
	char folder[64];
};

void pki_make(struct pki *pki);
void pki_drop(struct pki *pki);

/* Path of a file there; the string lives until the fourth next call. */
const char *pki_path(const struct pki *pki, const char *name);
/* Write a file there. */
void pki_write(const struct pki *pki, const char *name, const char *text);

#endif
