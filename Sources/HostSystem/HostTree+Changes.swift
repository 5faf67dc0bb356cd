internal import Glibc

/// Whoever carries out `write "text" to file`: the kernel behind a tree, or a test that plays it.
public protocol AttributeWriter: AnyObject {
    /// Hands the text to the file's owner in one piece. What the owner says to it is thrown.
    func write(_ text: String, to path: String) throws(SystemError)
}

/// Writes to the attribute files of a tree.
public final class KernelAttributes: AttributeWriter {
    private let tree: HostTree

    /// Writes below the root of `tree`.
    public init(_ tree: HostTree) {
        self.tree = tree
    }

    /// One `write`, because an attribute takes its value in one piece; files are not made.
    public func write(_ text: String, to path: String) throws(SystemError) {
        let file = try tree.open(path, O_WRONLY | O_NONBLOCK)
        let bytes = Array(text.utf8)
        let count = unsafe bytes.withUnsafeBytes { space in
            unsafe Glibc.write(file.rawValue, space.baseAddress, space.count)
        }
        guard count == bytes.count else {
            throw count < 0
                ? tree.failure("write \"\(text)\" to", path)
                : SystemError("write \"\(text)\" to \(tree.place(of: path))", .noSpace)
        }
    }
}

extension HostTree {
    /// Somebody has claimed a disk for itself: the kernel, for a file system of any namespace, or a
    /// program that opened it exclusively. A disk that may not be opened counts as free.
    public func isClaimed(disk path: String) -> Bool {
        do {
            _ = try open(path, O_RDONLY | O_EXCL | O_NONBLOCK)
            return false
        } catch { return error.errno == .busy }
    }
}

// Ordinary files, for what outlives this process.
extension HostTree {
    /// Makes a directory and those above it; one that is there is fine.
    public func makeDirectory(_ path: String) throws(SystemError) {
        var made = ""
        for part in path.split(separator: "/") {
            made += "/" + part
            if unsafe mkdir(place(of: made), 0o755) != 0, errno != EEXIST {
                throw failure("make the directory", made)
            }
        }
    }

    /// Puts a file in place as a whole: whoever reads it finds the old text or the new one, also
    /// after a crash.
    public func replaceFile(_ path: String, with text: String) throws(SystemError) {
        let draft = path + ".new"
        do {
            let file = try open(draft, O_WRONLY | O_CREAT | O_TRUNC)
            let bytes = Array(text.utf8)
            let count = unsafe bytes.withUnsafeBytes { space in
                unsafe Glibc.write(file.rawValue, space.baseAddress, space.count)
            }
            guard count == bytes.count, fsync(file.rawValue) == 0 else {
                throw failure("write", draft)
            }
        }
        guard unsafe rename(place(of: draft), place(of: path)) == 0 else {
            throw failure("put in place", path)
        }
    }

    /// Removes a file; one that is not there is fine.
    public func removeFile(_ path: String) throws(SystemError) {
        guard unsafe unlink(place(of: path)) == 0 || errno == ENOENT else {
            throw failure("remove", path)
        }
    }
}
