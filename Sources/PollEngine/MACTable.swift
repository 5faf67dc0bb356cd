/// Which port an Ethernet address was last heard on: the memory of the learning switch.
///
/// Open addressing over a fixed number of entries, allocated once. An address may stand only in the
/// `window` entries behind its hash, so that a search is bounded whatever is in the table; the hash
/// is keyed, so that no peer can aim at one window. Every port has a quota, beyond which its new
/// addresses replace its own, and in a full window a port with many entries gives way to one with
/// few: a peer that invents addresses harms itself (R5). Entries that were not heard for `maximumAge`
/// ticks count as free.
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
        /// The port has used up its quota and has nothing to replace here, or no entry of the window
        /// is free and none belongs to a port with many more.
        case full
        /// Not the address of one station: multicast, or all zero.
        case unusable
    }

    /// Entries that one search looks at.
    static var window: Int { @_noLocks get { 16 } }
    /// Entries that are looked at for one that a port may replace.
    private static var reach: Int { @_noLocks get { 64 } }
    /// The port of an entry that was given up.
    private static var nobody: UInt16 { @_noLocks get { .max } }

    private let entries: UnsafeMutablePointer<Entry>
    private let occupancy: UnsafeMutablePointer<UInt32>
    private let mask: Int
    private let portLimit: Int
    private let quota: UInt32
    private let maximumAge: UInt32
    private let key: UInt64
    /// Where the last search for an entry to replace ended.
    private var hand = 0

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

    /// Gives up all entries of a port. Looks at the whole table: not for the packet path.
    mutating func forget(port: Int, now: UInt32) {
        guard port >= 0, port < portLimit, unsafe occupancy[port] > 0 else { return }
        for index in 0...mask
        where unsafe entries[index].isUsed != 0 && Int(entries[index].port) == port {
            unsafe entries[index].heard = now &- maximumAge &- 1
            unsafe entries[index].port = MACTable.nobody
        }
        unsafe occupancy[port] = 0
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
        if free < 0 { free = richest(base, port) }
        guard free >= 0 else { return .full }
        return take(free, address, port: port, now: now)
    }

    /// The entry of a full window whose port has the most, when that is many more than `port` has;
    /// -1 otherwise.
    @_noLocks @inline(never)
    private func richest(_ base: Int, _ port: Int) -> Int {
        var most = unsafe 2 &* occupancy[port] &+ UInt32(truncatingIfNeeded: MACTable.window)
        var found = -1
        var step = 0
        while step < MACTable.window {
            let index = (base &+ step) & mask
            let owner = unsafe entries[index].port
            if owner != MACTable.nobody, (unsafe occupancy[Int(owner)]) > most {
                unsafe most = occupancy[Int(owner)]
                found = index
            }
            step &+= 1
        }
        return found
    }

    /// Gives up one entry of `port`, the next one that a hand going round comes to; false when it
    /// comes to none. The entry stays as one that has aged: searches go past it.
    @_noLocks @inline(never)
    private mutating func giveUp(of port: Int, now: UInt32) -> Bool {
        var step = 0
        while step < MACTable.reach {
            hand = (hand &+ 1) & mask
            step &+= 1
            let entry = unsafe entries[hand]
            guard entry.isUsed != 0, Int(entry.port) == port else { continue }
            unsafe entries[hand].heard = now &- maximumAge &- 1
            unsafe entries[hand].port = MACTable.nobody
            unsafe occupancy[port] &-= 1
            return true
        }
        return false
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

    /// Puts an address into an entry that is its own, free, aged or another's. Beyond its quota a
    /// port has to give up an entry for a new address, and does not take over one of another port.
    private mutating func take(
        _ index: Int,
        _ address: UInt64,
        port: Int,
        now: UInt32
    ) -> Learning {
        let old = unsafe entries[index]
        if old.isUsed == 0 || Int(old.port) != port {
            if unsafe occupancy[port] >= quota {
                let isMove = old.isUsed != 0 && old.address == address
                guard !isMove, giveUp(of: port, now: now) else { return .full }
            }
            if old.isUsed != 0, old.port != MACTable.nobody {
                unsafe occupancy[Int(old.port)] &-= 1
            }
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
