internal import CSystemShims
internal import Glibc
internal import GuestMemory
internal import HostSystem
internal import Virtqueue

/// What a TAP port counted; plain words with one writer, the worker.
struct TapCounters: BitwiseCopyable {
    /// Frames read from the interface.
    var receivedPackets: UInt64 = 0
    /// Their bytes.
    var receivedBytes: UInt64 = 0
    /// Frames written to the interface.
    var transmittedPackets: UInt64 = 0
    /// Their bytes.
    var transmittedBytes: UInt64 = 0
    /// Copies of the written frames' bytes on their way, the one that the kernel makes included.
    var copies: UInt64 = 0
    /// Frames that the interface's queue had no room for.
    var noRoom: UInt64 = 0
    /// Frames written while the interface was down.
    var down: UInt64 = 0
    /// Frames in more pieces than one write takes.
    var pieces: UInt64 = 0
    /// Frames for an interface that is gone.
    var gone: UInt64 = 0
    /// Frames that the kernel refused for another reason.
    var refused: UInt64 = 0
    /// Not 0 once the interface was deleted.
    var isGone: UInt64 = 0

    /// Drops by error id, those that did not occur left out.
    var drops: [String: UInt64] {
        let all: [(String, UInt64)] = [
            ("tap/no-room", noRoom), ("tap/down", down), ("tap/pieces", pieces),
            ("tap/gone", gone), ("tap/refused", refused),
        ]
        return Dictionary(uniqueKeysWithValues: all.filter { $0.1 > 0 })
    }
}

/// A TAP interface of this host as an uplink: frames without a virtio-net header, one system call
/// each, at most 32 a turn.
@safe
struct TapPort: ~Copyable {
    // Safety: `frames` holds `ChainBurst.capacity` frames of `frameSize` bytes and `vectors` holds
    // `mostPieces`, both until deinit. `file` keeps the descriptor open.
    /// Longest frame: the largest MTU plus header and tag, so that none is ever cut.
    static var frameSize: Int { 65_536 + 64 }
    /// Pieces that one writev(2) takes (UIO_MAXIOV).
    static var mostPieces: Int { 1024 }
    /// Turns without a read after one that found nothing: an empty read costs as much as five
    /// packets of a peer.
    static var restingTurns: Int { 16 }

    private let frames: UnsafeMutableRawPointer
    private let pages: Mapping
    private let vectors: UnsafeMutablePointer<iovec>
    private let file: FileDescriptor
    private let descriptor: Int32
    private var resting = 0
    private(set) var counters = TapCounters()

    /// Opens an interface that exists; it is never created here.
    static func open(_ name: String) throws(TapError) -> FileDescriptor {
        guard (1...15).contains(name.utf8.count),
            name.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x2F && $0 != 0x7F })
        else { throw .name(name) }
        guard (unsafe if_nametoindex(name)) != 0 else { throw .missing(name) }
        let status = unsafe shim_open_tap(name, 0)
        guard status >= 0 else { throw TapError(opening: name, Errno(-status)) }
        return FileDescriptor(owning: status)
    }

    /// Takes frames from and to a non-blocking descriptor, one frame a read and a write.
    init(_ file: FileDescriptor) throws(SystemError) {
        pages = try Mapping.anonymous(length: TapPort.frameSize * ChainBurst.capacity)
        unsafe frames = pages.address
        unsafe vectors = .allocate(capacity: TapPort.mostPieces)
        self.file = file
        descriptor = file.rawValue
    }

    deinit {
        unsafe vectors.deallocate()
    }

    /// Reads frames and appends them to an empty burst; they stay valid until the next call.
    @_noLocks
    mutating func receive(into burst: inout ChainBurst, limit: Int) -> Int {
        if resting > 0 {
            resting &-= 1
            return 0
        }
        guard counters.isGone == 0 else { return 0 }
        var count = 0
        let most = min(limit, ChainBurst.capacity)
        while count < most {
            let frame = unsafe frames + count &* TapPort.frameSize
            let length = unsafe SharedCell.readFrame(
                descriptor,
                into: frame,
                capacity: TapPort.frameSize
            )
            guard length > 0 else {
                if length == 0 || length == -Int(EBADFD) { counters.isGone = 1 }
                break
            }
            unsafe burst.segments[count] = Segment(
                pointer: frame,
                length: UInt32(truncatingIfNeeded: length)
            )
            unsafe burst.entries[count] = BurstEntry(
                firstSegment: UInt32(truncatingIfNeeded: count),
                segmentCount: 1,
                byteCount: UInt32(truncatingIfNeeded: length),
                head: 0,
                copies: 1
            )
            counters.receivedBytes &+= UInt64(truncatingIfNeeded: length)
            count &+= 1
        }
        burst.count = count
        burst.segmentCount = count
        counters.receivedPackets &+= UInt64(truncatingIfNeeded: count)
        if count == 0 { resting = TapPort.restingTurns }
        return count
    }

    /// Writes packets to the interface; those that it does not take are counted and gone.
    @_noLocks
    mutating func transmit(_ burst: borrowing ChainBurst, from: Int, count: Int) {
        var index = from
        while index < from &+ count {
            let entry = unsafe burst.entries[index]
            if entry.isDropped == 0 { unsafe write(entry, burst.segments) }
            index &+= 1
        }
    }

    /// Reads at once on the next turn: something was reported by epoll.
    mutating func endRest() {
        resting = 0
    }

    private mutating func write(_ entry: BurstEntry, _ segments: UnsafeMutablePointer<Segment>) {
        guard counters.isGone == 0 else {
            counters.gone &+= 1
            return
        }
        let pieces = Int(entry.segmentCount)
        guard pieces <= TapPort.mostPieces else {
            counters.pieces &+= 1
            return
        }
        var index = 0
        while index < pieces {
            let segment = unsafe segments[Int(entry.firstSegment) &+ index]
            unsafe vectors[index] = unsafe iovec(
                iov_base: segment.pointer,
                iov_len: Int(segment.length)
            )
            index &+= 1
        }
        let written = unsafe SharedCell.writeFrame(
            descriptor,
            pieces: vectors,
            count: Int32(truncatingIfNeeded: pieces)
        )
        if written >= 0 {
            counters.transmittedPackets &+= 1
            counters.transmittedBytes &+= UInt64(entry.byteCount)
            counters.copies &+= 1 &+ UInt64(entry.copies)
        } else if written == -Int(EAGAIN) || written == -Int(ENOBUFS) {
            counters.noRoom &+= 1
        } else if written == -Int(EIO) {
            counters.down &+= 1
        } else if written == -Int(EBADFD) {
            counters.isGone = 1
            counters.gone &+= 1
        } else {
            counters.refused &+= 1
        }
    }
}
