// Device registers: volatile access of exactly the stated width, never merged, split or elided.
#ifndef SHIM_MMIO_H
#define SHIM_MMIO_H

#include <stdint.h>
#include "shim_atomics.h"

SHIM_INLINE uint8_t shim_mmio_read8(const void *p) { return *(const volatile uint8_t *)p; }
SHIM_INLINE uint16_t shim_mmio_read16(const void *p) { return *(const volatile uint16_t *)p; }
SHIM_INLINE uint32_t shim_mmio_read32(const void *p) { return *(const volatile uint32_t *)p; }
SHIM_INLINE void shim_mmio_write8(void *p, uint8_t v) { *(volatile uint8_t *)p = v; }
SHIM_INLINE void shim_mmio_write16(void *p, uint16_t v) { *(volatile uint16_t *)p = v; }
SHIM_INLINE void shim_mmio_write32(void *p, uint32_t v) { *(volatile uint32_t *)p = v; }

#endif
