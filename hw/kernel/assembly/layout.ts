/**
 * The layouts of hw/iotlb and hw/pagetable again, as numbers: AssemblyScript cannot import them. All are
 * exported from the module, and test/hw/kernel/layout.test.ts compares each with its declaration.
 */

// Xlat
export const XLAT_IOVA: u32 = 0;
export const XLAT_FLAGS: u32 = 8;
export const XLAT_SID: u32 = 12;
export const XLAT_SSID: u32 = 16;
export const XLAT_COOKIE: u32 = 20;
export const XLAT_PA: u32 = 24;
export const XLAT_IPA: u32 = 32;
export const XLAT_STATUS: u32 = 40;
export const XLAT_SIZE_LG2: u32 = 44;
export const XLAT_FILL_SEQ: u32 = 48;
export const XLAT_FAULT: u32 = 52;
export const XLAT_SOURCE: u32 = 56;
export const XLAT_LEVEL: u32 = 60;

export const XLAT_BYTES: u32 = 64;
export const NO_SSID: u32 = 0xffff_ffff;
export const XLAT_FLAG_WRITE: u32 = 1;
export const XLAT_FLAG_INSTRUCTION: u32 = 2;
export const XLAT_FLAG_PRIVILEGED: u32 = 4;
export const XLAT_FLAG_TRANSLATED: u32 = 8;
export const XLAT_FLAG_ATS: u32 = 16;
export const XLAT_OK: u32 = 0;
export const XLAT_ABORT: u32 = 0xff;
export const XLAT_STALLED: u32 = 0xfe;
export const XLAT_RAZ_WI: u32 = 0xfd;
export const XLAT_NOT_GRANTED: u32 = 0xfc;
export const XLAT_PENDING: u32 = 0xffff_ffff;
export const XLAT_PERM_READ: u32 = 2;
export const XLAT_PERM_WRITE: u32 = 4;
export const XLAT_PERM_GLOBAL: u32 = 8;
export const XLAT_PERM_EXECUTE: u32 = 16;
export const XLAT_FAULT_S2: u32 = 1;
export const XLAT_FAULT_TABLE_WRITE: u32 = 8;
export const XLAT_FAULT_CLASS_SHIFT: u32 = 1;
export const CLASS_CD: u32 = 0;
export const CLASS_TTD: u32 = 1;
export const CLASS_IN: u32 = 2;
export const XLAT_FROM_MICRO: u32 = 1;
export const XLAT_FROM_IOTLB: u32 = 2;
export const XLAT_FROM_WALK: u32 = 3;
export const XLAT_FROM_BYPASS: u32 = 4;
export const XLAT_FROM_ATC: u32 = 5;

// Event numbers of the faults that a walk can find. [IHI0070] 7.3
export const F_WALK_EABT: u32 = 0x0b;
export const F_TRANSLATION: u32 = 0x10;
export const F_ADDR_SIZE: u32 = 0x11;
export const F_ACCESS: u32 = 0x12;
export const F_PERMISSION: u32 = 0x13;

// UnitLayout
export const UNIT_GEN: u32 = 0;
export const UNIT_SYNC_WAITING: u32 = 64;
export const UNIT_DOORBELL: u32 = 128;
export const UNIT_DOORBELL_PARKED: u32 = 192;
export const UNIT_LEAF_SIZES: u32 = 256;
export const UNIT_FILL_SEQ: u32 = 320;

/** In leafSizes: some entry is global, so that an invalidation by address must look at every ASID's sets. */
export const LEAF_SIZES_GLOBAL: u32 = 0x8000_0000;

// StreamContext
export const CONTEXT_SEQ: u32 = 0;
export const CONTEXT_SID: u32 = 4;
export const CONTEXT_VALID: u32 = 8;
export const CONTEXT_KIND: u32 = 12;
export const CONTEXT_TAG: u32 = 16;
export const CONTEXT_FLAGS: u32 = 20;
export const CONTEXT_S1_ROOT: u32 = 24;
export const CONTEXT_S1_INPUT_BITS: u32 = 32;
export const CONTEXT_S1_OUTPUT_BITS: u32 = 36;
export const CONTEXT_S2_ROOT: u32 = 40;
export const CONTEXT_S2_INPUT_BITS: u32 = 48;
export const CONTEXT_S2_OUTPUT_BITS: u32 = 52;
export const CONTEXT_S2_START_LEVEL: u32 = 56;
export const CONTEXT_S1_START_LEVEL: u32 = 60;
export const CONTEXT_S1_GRANULE_LG2: u32 = 64;
export const CONTEXT_S2_GRANULE_LG2: u32 = 68;
export const CONTEXT_SSID: u32 = 72;

export const CONTEXT_COUNT: u32 = 1024;
export const CONTEXT_BYTES: u32 = 128;
export const CONTEXT_ABORT: u32 = 0;
export const CONTEXT_BYPASS: u32 = 1;
export const CONTEXT_S1: u32 = 2;
export const CONTEXT_S2: u32 = 3;
export const CONTEXT_NESTED: u32 = 4;
export const CONTEXT_S1_EL2: u32 = 5;
export const CONTEXT_FLAG_S1_AF_FAULT: u32 = 1;
export const CONTEXT_FLAG_S2_AF_FAULT: u32 = 2;
export const CONTEXT_FLAG_S1_HA: u32 = 1 << 6;
export const CONTEXT_FLAG_S1_HD: u32 = 1 << 7;
export const CONTEXT_FLAG_S2_HA: u32 = 1 << 8;
export const CONTEXT_FLAG_S2_HD: u32 = 1 << 9;
export const CONTEXT_FLAG_ATS: u32 = 1 << 12;
export const CONTEXT_FLAG_ATS_S1CHK: u32 = 1 << 13;
export const CONTEXT_FLAG_WXN: u32 = 1 << 14;
export const CONTEXT_FLAG_UWXN: u32 = 1 << 15;
export const CONTEXT_FLAG_PAN: u32 = 1 << 16;
export const CONTEXT_FLAG_HAD: u32 = 1 << 17;
export const CONTEXT_FLAG_E0PD: u32 = 1 << 18;
export const CONTEXT_FLAG_E2H: u32 = 1 << 19;
export const CONTEXT_FLAG_S2_PTW: u32 = 1 << 20;
export const CONTEXT_FLAG_OAS52: u32 = 1 << 21;
export const CONTEXT_FLAG_PRIVCFG_SHIFT: u32 = 24;
export const CONTEXT_FLAG_INSTCFG_SHIFT: u32 = 26;

// IotlbEntry, iotlbLayout
export const IOTLB_ENTRY_SEQ: u32 = 0;
export const IOTLB_ENTRY_TAG: u32 = 4;
export const IOTLB_ENTRY_PAGE: u32 = 8;
export const IOTLB_ENTRY_PA: u32 = 16;
export const IOTLB_ENTRY_FILL_SEQ: u32 = 24;
export const IOTLB_ENTRY_IPA_PAGE: u32 = 28;
export const IOTLB_SETS: u32 = 0;
export const IOTLB_ENTRIES: u32 = 64;
export const IOTLB_ENTRY_BYTES: u32 = 32;
export const IOTLB_WAYS: u32 = 4;

// PortLayout
export const PORT_ACK: u32 = 0;
export const PORT_LAST_GEN: u32 = 64;
export const PORT_UNIT: u32 = 128;
export const PORT_CONTEXTS: u32 = 132;
export const PORT_IOTLB: u32 = 136;
export const PORT_SID: u32 = 140;
export const PORT_OUTSTANDING: u32 = 144;
export const PORT_BATCH_SEQ: u32 = 148;
export const PORT_IN_FLIGHT: u32 = 152;
export const PORT_MICRO_SSID: u32 = 156;
export const PORT_ATS: u32 = 160;
export const PORT_ATS_SEEN: u32 = 168;
export const PORT_ATC_GEN_SEEN: u32 = 172;
export const PORT_HITS_MICRO: u32 = 192;
export const PORT_HITS_IOTLB: u32 = 256;
export const PORT_MISSES: u32 = 264;
export const PORT_FAULTS: u32 = 272;
export const PORT_ANSWERED: u32 = 320;
export const PORT_PARKED: u32 = 384;
export const PORT_REQ_PROD: u32 = 448;
export const PORT_REQ_CONS: u32 = 512;
export const PORT_RESP_PROD: u32 = 576;
export const PORT_RESP_CONS: u32 = 640;
export const PORT_BATCH: u32 = 704;
export const PORT_MICRO: u32 = 4800;
export const PORT_REQ: u32 = 6848;
export const PORT_RESP: u32 = 15040;
export const PORT_ATS_CONTROL: u32 = 23232;
export const PORT_ATC_GEN: u32 = 23296;
export const PORT_HITS_ATC: u32 = 23424;
export const PORT_ATS_REQUESTS: u32 = 23488;
export const PORT_ATS_DENIED: u32 = 23496;
export const PORT_ATC: u32 = 23552;

export const PORT_BATCH_SLOTS: u32 = 64;
export const PORT_RING_SLOTS: u32 = 128;
export const MICRO_ENTRIES: u32 = 64;
export const MICRO_BYTES: u32 = 32;
export const ATC_ENTRIES: u32 = 256;
export const ATC_BYTES: u32 = 32;

// AtcEntry
export const ATC_ENTRY_WORD: u32 = 0;
export const ATC_ENTRY_ADDRESS: u32 = 8;
export const ATC_ENTRY_FILL_SEQ: u32 = 16;
export const ATC_ENTRY_SSID: u32 = 20;
export const ATC_ENTRY_IPA_PAGE: u32 = 24;

// PageTableLayout
export const PAGE_TABLE_ROOT: u32 = 0;
export const PAGE_TABLE_WINDOW_BASE: u32 = 8;
export const PAGE_TABLE_WINDOW_BYTES: u32 = 16;
export const PAGE_TABLE_UNMAPPED: u32 = 24;
export const PAGE_TABLE_RETIRED: u32 = 32;
export const PAGE_TABLE_DIRTY_BASE: u32 = 40;
export const PAGE_TABLE_WINDOW_LINEAR: u32 = 48;
export const PAGE_TABLE_STAGE: u32 = 52;
export const PAGE_TABLE_START_LEVEL: u32 = 56;
export const PAGE_TABLE_INPUT_BITS: u32 = 60;
export const PAGE_TABLE_OUTPUT_BITS: u32 = 64;
export const PAGE_TABLE_GRANULE_LG2: u32 = 68;
export const PAGE_TABLE_CONTIGUOUS: u32 = 72;
export const PAGE_TABLE_REASON: u32 = 76;
export const PAGE_TABLE_FOUND_LG2: u32 = 80;
export const PAGE_TABLE_FOUND_LEVEL: u32 = 84;
export const PAGE_TABLE_FOUND_PROT: u32 = 88;
export const PAGE_TABLE_DIRTY_LEAVES: u32 = 92;
export const PAGE_TABLE_DIRTY_BYTES: u32 = 96;
export const PAGE_TABLE_POOL_COUNT: u32 = 100;
export const PAGE_TABLE_FREED_COUNT: u32 = 104;
export const PAGE_TABLE_POOL: u32 = 112;
export const PAGE_TABLE_FREED: u32 = 368;
export const PAGE_TABLE_DIRTY: u32 = 896;

export const POOL_FRAMES: u32 = 32;
export const FREED_FRAMES: u32 = 64;
export const DIRTY_WINDOW: u32 = 4096;
export const LEAF_READ: u32 = 1;
export const LEAF_WRITE: u32 = 2;
export const LEAF_DBM: u32 = 1 << 8;
export const LEAF_NO_AF: u32 = 1 << 9;
export const LEAF_DIRTY: u32 = 1 << 10;
export const LEAF_CONTIGUOUS: u32 = 1 << 11;
export const REASON_DONE: u32 = 0;
export const REASON_POOL: u32 = 1;
export const REASON_FREED: u32 = 2;
export const REASON_EXISTS: u32 = 3;
export const REASON_SPLIT: u32 = 4;
export const REASON_WILD: u32 = 5;
export const REASON_SHAPE: u32 = 6;
export const REPLACE_SPLIT: u32 = 0;
export const REPLACE_COLLAPSE: u32 = 1;
export const REPLACE_UNGROUP: u32 = 2;
export const REPLACE_GROUP: u32 = 3;
export const STEP_BREAK: u32 = 0;
export const STEP_MAKE: u32 = 1;
export const STEP_DIRECT: u32 = 2;
export const STEP_SETTLE: u32 = 3;
export const STEP_UNDO: u32 = 4;
