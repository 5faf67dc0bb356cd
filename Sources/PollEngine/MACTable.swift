/// Which port an Ethernet address was last heard on: the memory of the learning switch.
///
/// Open addressing over a fixed number of entries, allocated once. An address may stand only in the
/// `window` entries behind its hash, so that a search is bounded whatever is in the table; the hash
/// is keyed, so that no peer can aim at one window. Every port has a quota, so that a peer that
/// invents addresses fills its own share and no other's (R5). Entries that were not heard for
/// `maximumAge` ticks count as free.
@safe
struct MACTable: ~Copyable {
    // Safety: `entries` and `occupancy` are allocated in init, freed in deinit; indices are masked
    // or compared with `portLimit` before use.
    private struct Entry: BitwiseCopyable {
        var address: UInt64
        var heard: UInt32
        var port: UInt16
        var isUsed: UInt16
    }

    /// Outcome of hearing an address.
    enum Learning: Equatable {
        /// The address stands in the table for this port.
        case known
        /// The port has used up its quota, or no entry of the window is free.
        case full
        /// Not the address of one station: multicast, or all zero.
        case unusable
    }

    /// Entries that one search looks at.
    static var window: Int { @_noLocks get { 16 } }

    private let entries: UnsafeMutablePointer<Entry>
    private let occupancy: UnsafeMutablePointer<UInt32>
    private let mask: Int
    private let portLimit: Int
    private let quota: UInt32
    private let maximumAge: UInt32
    private let key: UInt64

    /// Makes an empty table of `capacity` entries (rounded up to a power of two, at least 64).
    ///
    /// `quota` is the most entries of one port, `maximumAge` is in ticks of the `now` given later.
    init(capacity: Int, portLimit: Int, quota: Int, maximumAge: UInt32, key: UInt64) {
        var size = 64
        while size < capacity { size <<= 1 }
        mask = size - 1
        self.portLimit = portLimit
        self.quota = UInt32(clamping: quota)
        self.maximumAge = maximumAge
        self.key = key | 1
        unsafe entries = .allocate(capacity: size)
        unsafe entries.initialize(
            repeating: Entry(address: 0, heard: 0, port: 0, isUsed: 0),
            count: size
        )
        unsafe occupancy = .allocate(capacity: portLimit)
        unsafe occupancy.initialize(repeating: 0, count: portLimit)
    }

    deinit {
        unsafe entries.deallocate()
        unsafe occupancy.deallocate()
    }

    /// Entries that `port` holds, aged ones included until they are taken over.
    func count(of port: Int) -> Int {
        guard port >= 0, port < portLimit else { return 0 }
        return Int(unsafe occupancy[port])
    }

    /// Notes that `address` was the source of a frame that came in at `port`.
    @_noLocks
    mutating func learn(_ address: UInt64, port: Int, now: UInt32) -> Learning {
        guard address & 1 == 0, address != 0, port >= 0, port < portLimit else { return .unusable }
        let base = home(address)
        var free = -1
        var step = 0
        while step < MACTable.window {
            let index = (base &+ step) & mask
            let entry = unsafe entries[index]
            if entry.isUsed == 0 {
                if free < 0 { free = index }
                break
            }
            if entry.address == address {
                return take(index, address, port: port, now: now)
            }
            if free < 0, now &- entry.heard > maximumAge { free = index }
            step &+= 1
        }
        guard free >= 0 else { return .full }
        return take(free, address, port: port, now: now)
    }

    /// The port where `address` was last heard, unless that is too long ago; -1 when unknown.
    @_noLocks
    func lookup(_ address: UInt64, now: UInt32) -> Int {
        let base = home(address)
        var step = 0
        while step < MACTable.window {
            let index = (base &+ step) & mask
            let entry = unsafe entries[index]
            if entry.isUsed == 0 { return -1 }
            if entry.address == address {
                return now &- entry.heard > maximumAge ? -1 : Int(entry.port)
            }
            step &+= 1
        }
        return -1
    }

    /// Puts an address into an entry that is its own, free or aged; the quota decides.
    private mutating func take(
        _ index: Int,
        _ address: UInt64,
        port: Int,
        now: UInt32
    ) -> Learning {
        let old = unsafe entries[index]
        if old.isUsed == 0 || Int(old.port) != port {
            guard (unsafe occupancy[port]) < quota else { return .full }
            if old.isUsed != 0 { unsafe occupancy[Int(old.port)] &-= 1 }
            unsafe occupancy[port] &+= 1
        }
        unsafe entries[index] = Entry(
            address: address,
            heard: now,
            port: UInt16(truncatingIfNeeded: port),
            isUsed: 1
        )
        return .known
    }

    private func home(_ address: UInt64) -> Int {
        let mixed = (address ^ (address >> 23)) &* (0x9E37_79B9_7F4A_7C15 ^ (key &<< 1))
        return Int(truncatingIfNeeded: (mixed ^ (mixed >> 32)) >> 8) & mask
    }
}
